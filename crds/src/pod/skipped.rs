//! PURE: the containers that the pod's annotation excludes.

use std::collections::BTreeSet;

use csv_core::{ReadFieldResult, Reader};

/// The names in the annotation: its first line is one CSV record, as for the EKS webhook. Names of containers have no blanks, so
/// that a name after `, ` counts (the EKS webhook ignores it).
#[must_use]
pub fn skipped_containers(text: &str) -> BTreeSet<String> {
    // As for most pods; the reader's tables take as long to make as all else for a small pod.
    if text.is_empty() {
        return BTreeSet::new();
    }
    let mut reader = Reader::new();
    let mut left = text.as_bytes();
    // No field is longer than the text; one byte more, because a full buffer ends the reading early.
    let mut field = vec![0; text.len() + 1];
    let (mut names, mut length) = (BTreeSet::new(), 0);
    loop {
        // The reader takes an empty input for the end of the text.
        let (result, read, written) = reader.read_field(left, &mut field[length..]);
        (left, length) = (&left[read..], length + written);
        match result {
            ReadFieldResult::InputEmpty => {}
            ReadFieldResult::Field { record_end } => {
                let name = String::from_utf8_lossy(&field[..length]);
                // `a, "b"` is not quite CSV, and is meant.
                names.insert(name.trim().trim_matches('"').to_owned());
                if record_end {
                    break;
                }
                length = 0;
            }
            ReadFieldResult::OutputFull | ReadFieldResult::End => break,
        }
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_one_record() {
        for (text, names) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            ("a, b ,", vec!["a", "b"]),
            ("\"a\",b", vec!["a", "b"]),
            ("a, \"b\"", vec!["a", "b"]),
            ("\"a,b\"", vec!["a,b"]),
            ("\"a", vec!["a"]),
            ("a\nb", vec!["a"]),
            ("\r\na,b\r\nc", vec!["a", "b"]),
            (",,", vec![]),
        ] {
            assert_eq!(skipped_containers(text).into_iter().collect::<Vec<_>>(), names, "{text:?}");
        }
    }
}
