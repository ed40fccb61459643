//! `PodIdentityBinding`.

use binding::decide::{Due, Step, decide, due};
use binding::observe::{Account, Memory, Observed, Policies, RoleState};
use binding::target::{Holder, Issuer, Subject};

use super::*;

#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
struct Look {
    issuer: Option<OidcIssuerSpec>,
    issuer_deleting: bool,
    spec: PodIdentityBindingSpec,
    namespace: &'static str,
    generation: i64,
    age: Duration,
    deleting: bool,
    finalizer: bool,
    was_ready: bool,
    holder: Option<Holder>,
    observed: Observed,
    memory: Memory,
}

impl Look {
    fn subject(&self) -> Subject<'_> {
        Subject {
            namespace: self.namespace,
            name: "vault",
            spec: &self.spec,
            generation: self.generation,
            age: self.age,
            deleting: self.deleting,
            finalizer: self.finalizer,
            was_ready: self.was_ready,
            issuer: self.issuer.as_ref().map(|spec| Issuer {
                name: "default",
                spec,
                deleting: self.issuer_deleting,
            }),
            holder: self.holder.clone(),
            operator_namespace: "podidentity-system",
        }
    }

    /// Ready, and nothing to do.
    fn good() -> Self {
        let spec =
            serde_json::from_value(json!({"serviceAccountName": "vault", "role": {"policyArns": [STORAGE]}}));
        let mut look = Self {
            issuer: Some(issuer_spec()),
            issuer_deleting: false,
            spec: spec.unwrap(),
            namespace: "vault",
            generation: 1,
            age: Duration::from_hours(1),
            deleting: false,
            finalizer: true,
            was_ready: true,
            holder: None,
            observed: Observed { identity: Ok(identity()), role: Ok(None), account: None },
            memory: Memory::default(),
        };
        let plan = look.plan();
        let Some(Step::CreateRole(new)) = plan.steps.first() else { panic!("{plan:?}") };
        let arn = names::role_arn("aws", ACCOUNT, "homelab", "vault", "vault");
        let role = Role {
            arn: arn.clone(),
            trust: new.trust.clone(),
            boundary: new.boundary.clone(),
            tags: new.tags.clone(),
        };
        let policies = Policies { attached: vec![STORAGE.into()], inline: Vec::new() };
        look.observed.role = Ok(Some(RoleState::Found(role, Some(policies))));
        let annotations = BTreeMap::from([
            (annotation::ROLE_ARN.to_owned(), arn),
            (annotation::STS_REGIONAL_ENDPOINTS.to_owned(), "true".to_owned()),
        ]);
        look.observed.account = Some(Account {
            uid: "1".into(),
            version: "1".into(),
            ours: annotations.keys().cloned().collect(),
            annotations,
        });
        look
    }

    fn plan(&self) -> binding::decide::Plan {
        decide(&self.subject(), &self.observed, &self.memory, &Timings::default())
    }

    fn role(&mut self) -> &mut Role {
        match &mut self.observed.role {
            Ok(Some(RoleState::Found(role, _))) => role,
            other => panic!("{other:?}"),
        }
    }

    fn policies(&mut self) -> &mut Policies {
        match &mut self.observed.role {
            Ok(Some(RoleState::Found(_, Some(policies)))) => policies,
            other => panic!("{other:?}"),
        }
    }

    fn wants(&mut self, policies: &[&str]) {
        let role = self.spec.role.as_mut().unwrap();
        role.policy_arns = policies.iter().map(|p| (*p).to_owned()).collect();
    }
}

fn name(step: &Step) -> String {
    let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
    match step {
        Step::AddFinalizer => "hold".into(),
        Step::RemoveFinalizer => "let go".into(),
        Step::CreateRole(_) => "create".into(),
        Step::PutTrust(document) => {
            format!("trust {}", document["Statement"][0]["Effect"].as_str().unwrap())
        }
        Step::PutBoundary(_) => "boundary".into(),
        Step::Attach(arn) => format!("attach {}", last(arn)),
        Step::Detach(arn) => format!("detach {}", last(arn)),
        Step::DeleteInline(name) => format!("remove {name}"),
        Step::DeleteRole => "delete".into(),
        Step::Annotate { annotations, .. } => format!("annotate {}", annotations.len()),
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_what_is_seen_to_what_is_done_and_said() {
    type Change = fn(&mut Look);
    let table: &[(&str, Change, &[&str], &str)] = &[
        ("nothing to do", |_| {}, &[], "True Ready"),
        (
            "new: the call that makes it is the question whether it is there",
            |l| {
                (l.finalizer, l.was_ready) = (false, false);
                l.observed.role = Ok(None);
                l.observed.account.as_mut().unwrap().annotations.clear();
            },
            &["hold", "create", "attach storage", "annotate 2"],
            "False Progressing Reconciling",
        ),
        (
            "gone",
            |l| l.observed.role = Ok(Some(RoleState::Missing)),
            &["create", "attach storage"],
            "False Progressing Reconciling",
        ),
        ("trust", |l| l.role().trust = "{}".into(), &["trust Allow"], "False Progressing Reconciling"),
        (
            "boundary before trust",
            |l| {
                l.role().boundary = None;
                l.role().trust = "{}".into();
            },
            &["boundary", "trust Allow"],
            "False Progressing Reconciling",
        ),
        (
            "attach before detach",
            |l| l.wants(&[QUEUE]),
            &["attach queue", "detach storage"],
            "False Progressing Reconciling",
        ),
        (
            "detach before attach where the quota asks for it",
            |l| {
                l.policies().attached =
                    (0..10).map(|n| format!("arn:aws:iam::{ACCOUNT}:policy/p{n}")).collect();
            },
            &[
                "detach p0",
                "detach p1",
                "detach p2",
                "detach p3",
                "detach p4",
                "detach p5",
                "detach p6",
                "detach p7",
                "detach p8",
                "detach p9",
                "attach storage",
            ],
            "False Progressing Reconciling",
        ),
        (
            "named twice, attached once",
            |l| {
                l.wants(&[QUEUE, QUEUE]);
                l.policies().attached.clear();
            },
            &["attach queue"],
            "False Progressing Reconciling",
        ),
        (
            "inline",
            |l| l.policies().inline.push("backdoor".into()),
            &["remove backdoor"],
            "False Progressing Reconciling",
        ),
        ("somebody else's", |l| l.role().tags.clear(), &[], "False NotOwned Stalled"),
        (
            "of another cluster with this name",
            |l| {
                l.role().tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False NotOwned Stalled",
        ),
        ("no issuer", |l| l.issuer = None, &[], "False DependencyNotReady Reconciling"),
        (
            "the issuer goes, and this one is new",
            |l| {
                (l.issuer_deleting, l.finalizer) = (true, false);
            },
            &[],
            "False DependencyNotReady Reconciling",
        ),
        ("the issuer goes, and this one stands", |l| l.issuer_deleting = true, &[], "True Ready"),
        (
            "an audience nobody registered",
            |l| l.spec.audience = Some("other".into()),
            &[],
            "False InvalidSpec Stalled",
        ),
        (
            "no grant, and new",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                (l.finalizer, l.age) = (false, Duration::ZERO);
            },
            &[],
            "False WaitingForGrant Reconciling",
        ),
        (
            "no grant for two minutes",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                (l.finalizer, l.age) = (false, Duration::from_mins(2));
            },
            &[],
            "False NotGranted Stalled",
        ),
        (
            "a grant that is taken away freezes the role",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                l.role().trust = "{}".into();
            },
            &[],
            "False NotGranted Stalled",
        ),
        (
            "held by another, for a moment",
            |l| {
                l.holder = Some(Holder { name: "older".into(), deleting: false });
                l.age = Duration::ZERO;
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
        ),
        (
            "held by another",
            |l| l.holder = Some(Holder { name: "older".into(), deleting: false }),
            &[],
            "False ServiceAccountAlreadyBound Stalled",
        ),
        (
            "held by another on its way out",
            |l| l.holder = Some(Holder { name: "older".into(), deleting: true }),
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
        ),
        (
            "the operator's own",
            |l| {
                l.namespace = "podidentity-system";
                l.spec.service_account_name = "podidentity-operator".into();
            },
            &[],
            "False ReservedServiceAccount Stalled",
        ),
        ("AWS is away", |l| l.observed.role = Err(aws_error(Class::Transient)), &[], "True Ready"),
        (
            "AWS is away, and this one is new",
            |l| {
                l.observed.role = Err(aws_error(Class::Transient));
                l.was_ready = false;
            },
            &[],
            "False AWSUnavailable Reconciling",
        ),
        (
            "denied",
            |l| {
                l.observed.role = Err(aws_error(Class::Denied));
                l.was_ready = false;
            },
            &[],
            "False OperatorPermissionMissing Reconciling",
        ),
        ("no ServiceAccount", |l| l.observed.account = None, &[], "True Ready"),
        (
            "another role in the annotation",
            |l| {
                l.observed
                    .account
                    .as_mut()
                    .unwrap()
                    .annotations
                    .insert(annotation::ROLE_ARN.into(), "x".into());
            },
            &["annotate 2"],
            "True Ready",
        ),
        (
            "somebody else owns the annotation: not tried again on this version",
            |l| {
                let account = l.observed.account.as_mut().unwrap();
                account.annotations.insert(annotation::ROLE_ARN.into(), "x".into());
                (l.memory.conflict, l.memory.generation) = (Some(("1".into(), "argocd".into())), 1);
            },
            &[],
            "True Ready",
        ),
        (
            "made elsewhere",
            |l| {
                (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                l.observed.role = Ok(None);
            },
            &["annotate 2"],
            "True Ready",
        ),
        (
            "made elsewhere, after a role of its own",
            |l| {
                (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                l.generation = 2;
            },
            &["trust Deny", "detach storage", "delete", "annotate 2"],
            "True Ready",
        ),
        (
            "deletion: the door first, the finalizer last",
            |l| l.deleting = true,
            &["trust Deny", "annotate 0", "detach storage", "delete", "let go"],
            "False Deleting Reconciling",
        ),
        (
            "deletion: the operator may only touch bounded roles",
            |l| {
                l.deleting = true;
                l.role().boundary = None;
            },
            &["trust Deny", "boundary", "annotate 0", "detach storage", "delete", "let go"],
            "False Deleting Reconciling",
        ),
        (
            "deletion: nothing was made",
            |l| {
                (l.deleting, l.finalizer) = (true, false);
            },
            &[],
            "False Deleting Reconciling",
        ),
        (
            "deletion: already gone",
            |l| {
                l.deleting = true;
                l.observed.role = Ok(Some(RoleState::Missing));
            },
            &["annotate 0", "let go"],
            "False Deleting Reconciling",
        ),
        (
            "deletion: somebody else's role stays",
            |l| {
                l.deleting = true;
                l.role().tags.clear();
            },
            &["annotate 0", "let go"],
            "False Deleting Reconciling",
        ),
        (
            "deletion: AWS is away",
            |l| {
                l.deleting = true;
                l.observed.role = Err(aws_error(Class::Transient));
            },
            &[],
            "False DeletionBlocked Reconciling",
        ),
        (
            "deletion: without its issuer nobody knows whose role that is",
            |l| {
                (l.deleting, l.issuer) = (true, None);
                l.observed.role = Ok(None);
            },
            &[],
            "False DeletionBlocked Reconciling",
        ),
    ];
    for (row, change, steps, said) in table {
        let mut look = Look::good();
        change(&mut look);
        let plan = look.plan();
        let names: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(
            (names, summary(&plan.conditions).as_str()),
            (steps.iter().map(|s| (*s).to_owned()).collect(), *said),
            "{row}"
        );
    }
}

#[test]
fn aws_is_read_when_there_is_a_reason() {
    type Change = fn(&mut Look);
    let both = Due { role: true, policies: true };
    let now = Instant::now();
    let fresh = |look: &mut Look, age: Duration| {
        let at = now.checked_sub(age).unwrap();
        look.memory.generation = look.generation;
        look.memory.role = Some((None, at));
        look.memory.policies = Some((Policies::default(), at));
    };
    let table: &[(&str, Change, u64, Due)] = &[
        ("read a minute ago", |_| {}, 60, Due::default()),
        ("read ten minutes ago", |_| {}, 600, both),
        ("edited", |l| l.generation = 2, 60, both),
        ("about to be destroyed", |l| (l.deleting, l.generation) = (true, 2), 60, both),
        ("its policies were changed", |l| l.memory.policies = None, 60, Due { role: false, policies: true }),
        ("nobody has acted on it", |l| l.finalizer = false, 600, Due::default()),
        ("made elsewhere from the first day", |l| l.spec.role = None, 600, Due::default()),
        (
            "made elsewhere from the first day, and deleted",
            |l| {
                l.spec.role = None;
                (l.deleting, l.generation) = (true, 2);
            },
            600,
            Due::default(),
        ),
        (
            "made elsewhere since an edit",
            |l| {
                l.spec.role = None;
                l.generation = 2;
            },
            60,
            both,
        ),
    ];
    for (row, change, age, expected) in table {
        let mut look = Look::good();
        fresh(&mut look, Duration::from_secs(*age));
        change(&mut look);
        assert_eq!(due(&look.subject(), &look.memory, now, &Timings::default()), *expected, "{row}");
    }
}
