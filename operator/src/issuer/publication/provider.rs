//! PURE: the IAM OIDC provider and its audiences.

use crds::{Finding, Management, Reason};

use super::target::Target;
use crate::aws::model::{IamWrite, Provider, Write};
use crate::change::Change;
use crate::tags;

/// Whether the provider can be this issuer's.
pub fn check(target: &Target, found: Option<&Provider>) -> Result<(), Finding> {
    let provider = &target.provider_arn;
    if target.provider_management == Management::Managed {
        return found.map_or(Ok(()), |found| target.owner.check("OIDC provider", provider, &found.tags));
    }
    let lacks = |what: &str| {
        let message = format!(
            "{what}, and spec.provider.management is Existing: whoever keeps the provider has to correct that, or let it be \
             Managed"
        );
        Err(Finding::new(Reason::ExistingNotAsSpecified, message))
    };
    let Some(found) = found else { return lacks(&format!("there is no OIDC provider {provider}")) };
    let missing = target.audiences.iter().filter(|audience| !found.client_ids.contains(audience));
    match missing.map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        ref missing => {
            lacks(&format!("OIDC provider {provider} does not have audience {}", missing.join(", ")))
        }
    }
}

/// What registers the issuer with its audiences. `documents_exist`: IAM reads the URL when it registers it, so there must
/// be something to read.
#[must_use]
pub fn diff(target: &Target, found: Option<&Provider>, documents_exist: bool) -> Vec<Change> {
    if target.provider_management == Management::Existing {
        return Vec::new();
    }
    let Some(found) = found else {
        let create = Change {
            attribute: "OIDC provider",
            old: None,
            new: Some(target.provider_arn.clone()),
            write: Write::Iam(IamWrite::CreateProvider {
                url: target.issuer_url.clone(),
                audiences: target.audiences.clone(),
                tags: target.owner.tags().clone(),
            }),
        };
        return documents_exist.then_some(create).into_iter().collect();
    };
    let missing = target.audiences.iter().filter(|audience| !found.client_ids.contains(audience));
    let surplus = found.client_ids.iter().filter(|audience| !target.audiences.contains(audience));
    let provider = &target.provider_arn;
    let add = missing.map(|audience| {
        let write = IamWrite::AddAudience { provider: provider.clone(), audience: audience.clone() };
        audiences(None, Some(audience.clone()), write)
    });
    let remove = surplus.map(|audience| {
        let write = IamWrite::RemoveAudience { provider: provider.clone(), audience: audience.clone() };
        audiences(Some(audience.clone()), None, write)
    });
    let tags = tags::missing(target.owner.tags(), &found.tags, str::eq).map(|missing| Change {
        attribute: "provider tags",
        old: missing.describe_instead(),
        new: Some(missing.describe()),
        write: Write::Iam(IamWrite::TagProvider { provider: provider.clone(), tags: missing.tags }),
    });
    add.chain(remove).chain(tags).collect()
}

/// What takes the provider away.
#[must_use]
pub fn removal(target: &Target, found: Option<&Provider>) -> Option<Change> {
    found.filter(|_| target.provider_management == Management::Managed).map(|_| Change {
        attribute: "OIDC provider",
        old: Some(target.provider_arn.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeleteProvider { provider: target.provider_arn.clone() }),
    })
}

fn audiences(old: Option<String>, new: Option<String>, write: IamWrite) -> Change {
    Change { attribute: "provider audiences", old, new, write: Write::Iam(write) }
}
