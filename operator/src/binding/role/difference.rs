//! PURE: in which order the policies of a role are added and removed.

use crate::change::Change;

/// What makes one sort of policies, managed or inline, as specified.
#[derive(Debug)]
pub struct Difference {
    /// What IAM may refuse.
    pub additions: Vec<Change>,
    /// What takes rights away.
    pub removals: Vec<Change>,
    /// Whether IAM's quota leaves room for the additions before the removals.
    pub fits: bool,
}

impl Difference {
    /// All changes. IAM may refuse what is added, of either sort: until it is there, the role keeps what it has, except where the quota leaves no
    /// other order.
    #[must_use]
    pub fn in_order(sorts: [Self; 2]) -> Vec<Change> {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for Self { additions, removals, fits } in sorts {
            if fits {
                first.extend(additions);
                last.extend(removals);
            } else {
                last.extend(removals);
                last.extend(additions);
            }
        }
        first.extend(last);
        first
    }
}
