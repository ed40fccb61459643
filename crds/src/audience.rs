//! The audience of the tokens that the pods of a binding get. Operator and webhook share the rule, so that the operator expects of a
//! pod what the webhook gives it.

use crate::names::DEFAULT_AUDIENCE;

/// The audience for the pods of a binding that makes its role.
///
/// The operator refuses an audience that the issuer does not have, and leaves the trust policy as it is. While `annotations` say that
/// the binding has a role, its new pods get the audience that the operator has annotated before: the role trusts that one. Without
/// a role there is nothing to keep, and pods that start before the issuer has the audience are to have the right one.
///
/// `issuer`: the audiences of the issuer; without any, the specified or the default one.
#[must_use]
pub fn audience<'a>(
    specified: Option<&'a str>,
    issuer: &'a [impl AsRef<str>],
    annotated: Option<Annotated<'a>>,
) -> &'a str {
    let has = |audience: &&str| issuer.iter().any(|known| known.as_ref() == *audience);
    let first = || issuer.first().map_or(DEFAULT_AUDIENCE, AsRef::as_ref);
    match (specified, annotated) {
        (Some(specified), None) => specified,
        (Some(specified), Some(_)) if has(&specified) => specified,
        (Some(_), Some(Annotated(audience))) => {
            Some(audience.unwrap_or(DEFAULT_AUDIENCE)).filter(has).unwrap_or_else(first)
        }
        (None, _) => first(),
    }
}

/// The audience in the annotations of a `ServiceAccount` that name the role of its binding. `None` is the default one, for which
/// the operator writes no annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotated<'a>(pub Option<&'a str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_that_the_issuer_does_not_have_changes_nothing_for_a_role_that_exists() {
        let issuer = ["first", DEFAULT_AUDIENCE, "vault"];
        for (specified, annotated, expected) in [
            (None, None, "first"),
            (None, Some(Annotated(Some("vault"))), "first"),
            (Some("vault"), None, "vault"),
            (Some("vault"), Some(Annotated(None)), "vault"),
            // Refused.
            (Some("other"), Some(Annotated(Some("vault"))), "vault"),
            (Some("other"), Some(Annotated(None)), DEFAULT_AUDIENCE),
            // The issuer does not have the former one either.
            (Some("other"), Some(Annotated(Some("gone"))), "first"),
            // There is no role yet.
            (Some("other"), None, "other"),
        ] {
            assert_eq!(audience(specified, &issuer, annotated), expected, "{specified:?} {annotated:?}");
        }
        assert_eq!(audience(None, &[] as &[&str], None), DEFAULT_AUDIENCE);
    }
}
