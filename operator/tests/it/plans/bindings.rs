//! `PodIdentityBinding`.

use binding::decide::{decide, due};
use binding::model::{
    Conflict, Due, Holder, Memory, Observed, Plan, RoleState, ServiceAccountState, Step, Unresolved, View,
};
use binding::role::target;

use super::*;

/// Everything a row may change; as it is: Ready, and nothing to do.
#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
struct Case {
    issuer: Option<OidcIssuerSpec>,
    issuer_deleting: bool,
    account: Result<&'static str, AwsError>,
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
    clock: Clock,
}

impl Case {
    fn view(&self) -> View {
        let issuer = self.issuer.as_ref().map(|spec| {
            let mut issuer = OidcIssuer::new("default", spec.clone());
            issuer.metadata.deletion_timestamp = self.issuer_deleting.then_some(Time(self.clock.wall));
            issuer
        });
        let target = match (&issuer, &self.account) {
            (None, _) => Err(Unresolved::NoIssuer),
            (_, Err(error)) => Err(Unresolved::Account(error.clone())),
            (Some(issuer), Ok(account)) => {
                let urls = [issuer.spec.issuer_url()];
                Ok(target(self.namespace, "vault", &self.spec, &issuer.spec, urls, account))
            }
        };
        let object = ObjectState {
            namespace: self.namespace.into(),
            name: "vault".into(),
            generation: self.generation,
            created: self.clock.wall - self.age,
            deleting: self.deleting,
            finalizer: self.finalizer,
            was_ready: self.was_ready,
        };
        let mut view = View {
            reserved: self.namespace == "podidentity-system",
            binding: Arc::new(PodIdentityBinding::new("vault", self.spec.clone())),
            issuer: issuer.map(Arc::new),
            holder: self.holder.clone(),
            object,
            target,
        };
        if view.never_had_role() {
            view.target = Err(Unresolved::NotNeeded);
        }
        view
    }

    /// Ready, and nothing to do.
    fn good() -> Self {
        let spec =
            serde_json::from_value(json!({"serviceAccountName": "vault", "role": {"policyARNs": [STORAGE]}}));
        let mut case = Self {
            issuer: Some(issuer_spec()),
            issuer_deleting: false,
            account: Ok(ACCOUNT),
            spec: spec.unwrap(),
            namespace: "vault",
            generation: 1,
            age: Duration::from_hours(1),
            deleting: false,
            finalizer: true,
            was_ready: true,
            holder: None,
            observed: Observed { role: Ok(None), service_account: None },
            memory: Memory::default(),
            clock: clock(),
        };
        let plan = case.plan();
        let Some(Step::Change(Change { write: Write::Iam(IamWrite::CreateRole(new)), .. })) =
            plan.steps.first()
        else {
            panic!("{plan:?}")
        };
        let arn = names::role_arn("aws", ACCOUNT, "homelab", "vault", "vault");
        let role = Role {
            arn: arn.clone(),
            trust: new.trust.clone(),
            boundary: new.boundary.clone(),
            settings: new.settings.clone(),
            tags: new.tags.clone(),
        };
        let policies = RolePolicies { attached: vec![STORAGE.into()], inline: Vec::new() };
        case.observed.role = Ok(Some(RoleState::Found(role, Some(policies))));
        let annotations = BTreeMap::from([
            (annotation::ROLE_ARN.to_owned(), arn),
            (annotation::STS_REGIONAL_ENDPOINTS.to_owned(), "true".to_owned()),
        ]);
        case.observed.service_account = Some(ServiceAccountState {
            uid: "1".into(),
            version: "1".into(),
            ours: annotations.keys().cloned().collect(),
            annotations,
        });
        case
    }

    fn plan(&self) -> Plan {
        decide(&self.view(), &self.observed, &self.memory, &self.clock, &Timings::default())
    }

    fn service_account(&mut self) -> &mut ServiceAccountState {
        self.observed.service_account.as_mut().unwrap()
    }

    fn role(&mut self) -> &mut Role {
        match &mut self.observed.role {
            Ok(Some(RoleState::Found(role, _))) => role,
            other => panic!("{other:?}"),
        }
    }

    fn policies(&mut self) -> &mut RolePolicies {
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
        Step::AddFinalizer => "add finalizer".into(),
        Step::RemoveFinalizer => "remove finalizer".into(),
        Step::Own(annotate) => format!("annotate {}", annotate.annotations.len()),
        Step::Change(Change { write: Write::Iam(write), .. }) => match write {
            IamWrite::CreateRole(_) => "create".into(),
            IamWrite::PutTrust { document, .. } => {
                format!("trust {}", document["Statement"][0]["Effect"].as_str().unwrap())
            }
            IamWrite::PutBoundary { .. } => "boundary".into(),
            IamWrite::PutSettings { settings, .. } => format!("session {}", settings.max_session_seconds),
            IamWrite::AttachPolicy { policy, .. } => format!("attach {}", last(policy)),
            IamWrite::DetachPolicy { policy, .. } => format!("detach {}", last(policy)),
            IamWrite::DeleteInline { name, .. } => format!("remove {name}"),
            IamWrite::DeleteRole { .. } => "delete".into(),
            other => panic!("{other:?}"),
        },
        Step::Change(other) => panic!("{other:?}"),
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn from_what_is_observed_to_steps_and_conditions() {
    type Change = fn(&mut Case);
    let table: &[(&str, Change, &[&str], &str, &str)] = &[
        ("nothing to do", |_| {}, &[], "True Ready", "+Granted +Verified +Annotated"),
        (
            "new: the call that makes it is the question whether it is there",
            |l| {
                (l.finalizer, l.was_ready) = (false, false);
                l.observed.role = Ok(None);
                l.service_account().annotations.clear();
            },
            &["add finalizer", "create", "attach storage", "annotate 2"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "gone",
            |l| l.observed.role = Ok(Some(RoleState::Missing)),
            &["create", "attach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "trust",
            |l| l.role().trust = "{}".into(),
            &["trust Allow"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a session limit",
            |l| l.role().settings.max_session_seconds = 43_200,
            &["session 3600"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a description",
            |l| l.spec.role.as_mut().unwrap().description = Some("for Vault".into()),
            &["session 3600"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "a longer session than the grant allows",
            |l| l.spec.role.as_mut().unwrap().max_session_duration = Some(Duration::from_hours(2).into()),
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "boundary before trust",
            |l| {
                l.role().boundary = None;
                l.role().trust = "{}".into();
            },
            &["boundary", "trust Allow"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "attach before detach",
            |l| l.wants(&[QUEUE]),
            &["attach queue", "detach storage"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
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
            "+Granted -Progressing +Annotated",
        ),
        (
            "named twice, attached once",
            |l| {
                l.wants(&[QUEUE, QUEUE]);
                l.policies().attached.clear();
            },
            &["attach queue"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "inline",
            |l| l.policies().inline.push("backdoor".into()),
            &["remove backdoor"],
            "False Progressing Reconciling",
            "+Granted -Progressing +Annotated",
        ),
        (
            "somebody else's",
            |l| l.role().tags.clear(),
            &[],
            "False NotOwned Stalled",
            "+Granted -NotOwned +Annotated",
        ),
        (
            "of another cluster with this name",
            |l| {
                l.role().tags.insert(names::tag::ISSUER.into(), OTHER.into());
            },
            &[],
            "False NotOwned Stalled",
            "+Granted -NotOwned +Annotated",
        ),
        (
            "no issuer",
            |l| l.issuer = None,
            &[],
            "False DependencyNotReady Reconciling",
            "?DependencyNotReady ?DependencyNotReady ?DependencyNotReady",
        ),
        (
            "the issuer goes, and this one is new",
            |l| {
                (l.issuer_deleting, l.finalizer) = (true, false);
            },
            &[],
            "False DependencyNotReady Reconciling",
            "+Granted +Verified +Annotated",
        ),
        (
            "the issuer goes, and this one stands",
            |l| l.issuer_deleting = true,
            &[],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "an audience nobody registered",
            |l| l.spec.audience = Some("other".into()),
            &[],
            "False InvalidSpec Stalled",
            "+Granted -InvalidSpec -InvalidSpec",
        ),
        (
            "no grant, and new",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                (l.finalizer, l.age) = (false, Duration::ZERO);
            },
            &[],
            "False WaitingForGrant Reconciling",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "no grant for two minutes",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                (l.finalizer, l.age) = (false, Duration::from_mins(2));
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted +Verified +Annotated",
        ),
        (
            "a grant that is taken away freezes the role",
            |l| {
                l.issuer.as_mut().unwrap().grants.clear();
                l.role().trust = "{}".into();
            },
            &[],
            "False NotGranted Stalled",
            "-NotGranted -NotGranted +Annotated",
        ),
        (
            "bound by another, for a moment",
            |l| {
                l.holder = Some(Holder { name: "older".into(), deleting: false });
                l.age = Duration::ZERO;
            },
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "bound by another",
            |l| l.holder = Some(Holder { name: "older".into(), deleting: false }),
            &[],
            "False ServiceAccountAlreadyBound Stalled",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "bound by another on its way out",
            |l| l.holder = Some(Holder { name: "older".into(), deleting: true }),
            &[],
            "False ServiceAccountAlreadyBound Reconciling",
            "+Granted -ServiceAccountAlreadyBound -ServiceAccountAlreadyBound",
        ),
        (
            "the operator's own",
            |l| {
                l.namespace = "podidentity-system";
                l.spec.service_account_name = "podidentity-operator".into();
            },
            &[],
            "False ReservedServiceAccount Stalled",
            "-NotGranted -ReservedServiceAccount -ReservedServiceAccount",
        ),
        (
            "AWS is away",
            |l| l.observed.role = Err(aws_error(Class::Transient)),
            &[],
            "True Ready",
            "+Granted =AWSUnavailable +Annotated AWSReachable-AWSUnavailable",
        ),
        (
            "AWS is away, and this one is new",
            |l| {
                l.observed.role = Err(aws_error(Class::Transient));
                l.was_ready = false;
            },
            &[],
            "False AWSUnavailable Reconciling",
            "+Granted ?AWSUnavailable +Annotated AWSReachable-AWSUnavailable",
        ),
        (
            "denied",
            |l| {
                l.observed.role = Err(aws_error(Class::Denied));
                l.was_ready = false;
            },
            &[],
            "False OperatorPermissionMissing Reconciling",
            "+Granted ?OperatorPermissionMissing +Annotated AWSReachable-OperatorPermissionMissing",
        ),
        (
            "no ServiceAccount",
            |l| l.observed.service_account = None,
            &[],
            "True Ready",
            "+Granted +Verified -ServiceAccountNotFound",
        ),
        (
            "another role in the annotation",
            |l| {
                l.service_account().annotations.insert(annotation::ROLE_ARN.into(), "x".into());
            },
            &["annotate 2"],
            "True Ready",
            "+Granted +Verified +Annotated",
        ),
        (
            "somebody else owns the annotation: not tried again on this version",
            |l| {
                l.service_account().annotations.insert(annotation::ROLE_ARN.into(), "x".into());
                (l.memory.conflict, l.memory.generation) =
                    (Some(Conflict { version: "1".into(), owner: "argocd".into() }), 1);
            },
            &[],
            "True Ready",
            "+Granted +Verified -AnnotationOwnedByOther",
        ),
        (
            "made elsewhere",
            |l| {
                (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                l.observed.role = Ok(None);
            },
            &["annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired +Annotated",
        ),
        (
            "made elsewhere, after a role of its own",
            |l| {
                (l.spec.role, l.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/x".into()));
                l.generation = 2;
            },
            &["trust Deny", "detach storage", "delete", "annotate 2"],
            "True Ready",
            "+NotRequired +NotRequired +Annotated",
        ),
        (
            "deletion: trust revoked first, the finalizer last",
            |l| l.deleting = true,
            &["trust Deny", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: the operator may only touch bounded roles",
            |l| {
                l.deleting = true;
                l.role().boundary = None;
            },
            &["trust Deny", "boundary", "annotate 0", "detach storage", "delete", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: nothing was made",
            |l| {
                (l.deleting, l.finalizer) = (true, false);
            },
            &[],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: already gone",
            |l| {
                l.deleting = true;
                l.observed.role = Ok(Some(RoleState::Missing));
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: somebody else's role stays",
            |l| {
                l.deleting = true;
                l.role().tags.clear();
            },
            &["annotate 0", "remove finalizer"],
            "False Deleting Reconciling",
            "+Granted -Deleting -Deleting",
        ),
        (
            "deletion: AWS is away",
            |l| {
                l.deleting = true;
                l.observed.role = Err(aws_error(Class::Transient));
            },
            &[],
            "False DeletionBlocked Reconciling",
            "+Granted -DeletionBlocked -DeletionBlocked",
        ),
        (
            "deletion: without its issuer the role's owner is not known",
            |l| {
                (l.deleting, l.issuer) = (true, None);
                l.observed.role = Ok(None);
            },
            &[],
            "False DeletionBlocked Reconciling",
            "?DependencyNotReady -DeletionBlocked -DeletionBlocked",
        ),
    ];
    for (row, change, steps, ready, others) in table {
        let mut case = Case::good();
        change(&mut case);
        let plan = case.plan();
        let names: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(types(&plan.conditions), [C::Granted, C::RoleReady, C::ServiceAccountAnnotated], "{row}");
        assert_eq!(names, *steps, "{row}");
        assert_eq!(
            (summary(&plan.conditions).as_str(), verdicts(&plan.conditions).as_str()),
            (*ready, *others),
            "{row}"
        );
    }
}

#[test]
fn aws_is_read_when_there_is_a_reason() {
    type Change = fn(&mut Case);
    let both = Due { role: true, policies: true };
    let fresh = |case: &mut Case, age: Duration| {
        let at = case.clock.instant.checked_sub(age).unwrap();
        case.memory.generation = case.generation;
        case.memory.role = Some((None, at));
        case.memory.policies = Some((RolePolicies::default(), at));
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
        let mut case = Case::good();
        fresh(&mut case, Duration::from_secs(*age));
        change(&mut case);
        assert_eq!(due(&case.view(), &case.memory, &case.clock, &Timings::default()), *expected, "{row}");
    }
}
