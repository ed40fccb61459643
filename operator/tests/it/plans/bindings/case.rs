//! What a row of the tables starts from, and the words for its steps.

use binding::decide::decide;
use binding::granted::check_grant;
use binding::model::{
    Memory, Observed, Own, Plan, RoleState, ServiceAccountState, Sibling, Step, Unresolved, View,
};
use binding::role::{Heir, target};
use crds::PodIdentityBindingStatus;
use crds::conditions::merge;
use k8s_openapi::jiff::SignedDuration;
use operator::aws::model::RoleChanges;
use operator::grant::Losses;
use operator::pods;
use operator::pods::model::PodsState;

use super::super::*;

/// Everything a row may change; as it is: Ready, and nothing to do.
#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
pub struct Case {
    pub issuer: Option<OidcIssuerSpec>,
    pub issuer_deleting: bool,
    /// The one under which the role was made, where that is another one.
    pub made_under: Option<OidcIssuerSpec>,
    /// Annotations of the issuer and of the binding.
    pub annotations: BTreeMap<String, String>,
    pub losses: Losses,
    /// The time of the revocation that the status says, in seconds from now.
    pub revoke_in: Option<i64>,
    /// Whether the status says Stalled.
    pub is_stalled: bool,
    /// Labels of the namespace.
    pub labels: BTreeMap<String, String>,
    /// The digest of the role in the status.
    pub role_digest: Option<String>,
    /// The reason of Ready in the status.
    pub ready_reason: Option<Reason>,
    pub account: Result<&'static str, AwsError>,
    pub spec: PodIdentityBindingSpec,
    pub namespace: &'static str,
    pub generation: i64,
    pub age: Duration,
    pub deleting: bool,
    pub finalizer: bool,
    pub was_ready: bool,
    /// Whether its status names its role.
    pub has_role: bool,
    /// The ARN that its status names, where it is not the role's own.
    pub named_arn: Option<&'static str>,
    pub siblings: Vec<Sibling>,
    pub observed: Observed,
    pub memory: Memory,
    pub clock: Clock,
}

impl Case {
    pub fn view(&self) -> View {
        let issuer = self.issuer.as_ref().map(|spec| {
            let mut issuer = OidcIssuer::new("default", spec.clone());
            issuer.metadata.deletion_timestamp = self.issuer_deleting.then_some(Time(self.clock.wall));
            issuer.metadata.generation = Some(7);
            issuer.metadata.annotations = Some(self.annotations.clone());
            issuer
        });
        let target = match (&issuer, &self.account) {
            (None, _) => Err(Unresolved::NoIssuer),
            (_, Err(error)) => Err(Unresolved::Account(error.clone())),
            (Some(issuer), Ok(account)) => {
                let urls = [issuer.spec.issuer_url()];
                Ok(target(
                    self.namespace,
                    "vault",
                    &self.spec,
                    &issuer.spec,
                    urls,
                    &Identity::of_account(account),
                ))
            }
        };
        let object = ObjectState {
            namespace: self.namespace.into(),
            name: "vault".into(),
            generation: self.generation,
            created: self.clock.wall - self.age,
            deleting: self.deleting,
            finalizer: self.finalizer,
            was_ready: self.was_ready && !self.deleting,
        };
        let mut binding = PodIdentityBinding::new("vault", self.spec.clone());
        binding.metadata.annotations = Some(self.annotations.clone());
        binding.metadata.generation = Some(self.generation);
        binding.metadata.creation_timestamp = Some(Time(object.created));
        binding.metadata.finalizers = self.finalizer.then(|| vec![names::FINALIZER.to_owned()]);
        let role_name = self.has_role.then(|| "homelab.vault.vault-x".to_owned());
        let computed =
            names::role_arn("aws", self.account.as_ref().unwrap_or(&ACCOUNT), "homelab", "vault", "vault");
        let role_arn = role_name.as_ref().map(|_| self.named_arn.map_or(computed, str::to_owned));
        let not_ready = self.ready_reason.map(|reason| Wanted::no(C::Ready, Finding::new(reason, "")));
        let ready = not_ready.or_else(|| self.was_ready.then(|| Wanted::yes(C::Ready, Reason::Ready, "")));
        let stalled = self.is_stalled.then(|| Wanted::yes(C::Stalled, Reason::NotGranted, ""));
        let ready = ready.into_iter().chain(stalled).collect();
        binding.status = Some(PodIdentityBindingStatus {
            role_name,
            role_arn,
            revoke_at: self
                .revoke_in
                .map(|seconds| Time(self.clock.wall + SignedDuration::from_secs(seconds))),
            observed_generation: Some(self.generation),
            conditions: merge(&[], ready, self.generation, &Time(self.clock.wall)),
            missing: None,
            role_digest: self.role_digest.clone(),
            issuer: self.made_under.as_ref().map(|_| "former".to_owned()),
            audience: None,
        });
        let labels = Some(Arc::new(self.labels.clone()));
        let grant = check_grant(
            self.namespace,
            labels.as_deref(),
            &self.spec,
            issuer.as_ref().ok_or_else(|| {
                Finding::new(Reason::DependencyNotReady, "OidcIssuer default does not exist: create it")
            }),
        );
        let issuer = issuer.map(Arc::new);
        let own_issuers = vec![(self.spec.issuer_name().to_owned(), issuer.clone())];
        let mut view = View {
            now: self.clock.wall,
            labels,
            grant,
            losses: self.losses,
            invalid: self.spec.check().err().map(|why| Finding::new(Reason::InvalidSpec, why)),
            refused: None,
            own_namespace: false,
            reserved: self.namespace == "podidentity-system",
            binding: Arc::new(binding),
            knows_issuer: issuer.is_some(),
            granting: self
                .made_under
                .as_ref()
                .map(|spec| Arc::new(OidcIssuer::new("former", spec.clone())))
                .or_else(|| issuer.clone()),
            issuer,
            siblings: self.siblings.clone(),
            own_issuers,
            sibling_issuers: Vec::new(),
            object,
            target,
        };
        if view.never_had_role() {
            view.target = Err(Unresolved::NotNeeded);
        }
        view
    }

    /// Ready, and nothing to do.
    pub fn good() -> Self {
        let spec =
            serde_json::from_value(json!({"serviceAccountName": "vault", "role": {"policyARNs": [STORAGE]}}));
        let mut case = Self {
            issuer: Some(issuer_spec()),
            issuer_deleting: false,
            made_under: None,
            annotations: BTreeMap::new(),
            losses: Losses::default(),
            revoke_in: None,
            is_stalled: false,
            labels: BTreeMap::new(),
            role_digest: None,
            ready_reason: None,
            account: Ok(ACCOUNT),
            spec: spec.unwrap(),
            namespace: "vault",
            generation: 1,
            age: Duration::from_hours(1),
            deleting: false,
            finalizer: true,
            was_ready: true,
            has_role: true,
            named_arn: None,
            siblings: Vec::new(),
            observed: Observed {
                role: Ok(None),
                changes: RoleChanges::default(),
                service_account: None,
                pods: PodsState::Known(pods::model::Found::default()),
                restarts: Vec::new(),
            },
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
            id: "AROA1".into(),
            arn: arn.clone(),
            trust: new.trust.clone(),
            boundary: new.boundary.clone(),
            settings: new.settings.clone(),
            tags: new.tags.clone(),
        };
        let attached = BTreeMap::from([(STORAGE.to_owned(), None)]);
        let policies = RolePolicies { attached, ..RolePolicies::default() };
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

    pub fn plan(&self) -> Plan {
        decide(&self.view(), &self.observed, &self.memory, &self.clock, &Timings::default())
    }

    pub fn service_account(&mut self) -> &mut ServiceAccountState {
        self.observed.service_account.as_mut().unwrap()
    }

    pub fn role(&mut self) -> &mut Role {
        match &mut self.observed.role {
            Ok(Some(RoleState::Found(role, _))) => role,
            other => panic!("{other:?}"),
        }
    }

    pub fn policies(&mut self) -> &mut RolePolicies {
        match &mut self.observed.role {
            Ok(Some(RoleState::Found(_, Some(policies)))) => policies,
            other => panic!("{other:?}"),
        }
    }

    /// Another binding on the `ServiceAccount`, made an hour before this one, with a role, Ready, with another specification.
    pub fn add_sibling(&mut self, edit: impl FnOnce(&mut Sibling)) {
        let mut sibling = Sibling {
            name: "older".into(),
            created: Some(self.clock.wall - self.age - Duration::from_hours(1)),
            deleting: false,
            has_role: true,
            acted_on: false,
            ready: true,
            same_effect: false,
            uses_role: false,
            heir: None,
        };
        edit(&mut sibling);
        self.siblings.push(sibling);
    }

    /// What makes the role that binding's.
    pub fn heir(&mut self, name: &str) -> Heir {
        let mut tags = self.role().tags.clone();
        tags.insert(names::tag::NAME.into(), name.into());
        let (uid, version) = ("2".to_owned(), "2".to_owned());
        Heir { name: name.into(), uid, version, finalizers: Vec::new(), tags }
    }

    /// The role belongs to another binding of the namespace.
    pub fn is_role_of(&mut self, name: &str) {
        self.role().tags = self.heir(name).tags;
        self.has_role = false;
    }

    /// This process began to lead a second ago.
    pub fn just_started(&mut self) {
        self.clock.started = self.clock.instant.checked_sub(Duration::from_secs(1)).unwrap();
    }

    /// This process made the role, or re-tagged it.
    pub fn made_a_second_ago(&mut self) {
        let at = self.clock.instant.checked_sub(Duration::from_secs(1)).unwrap();
        self.observed.changes.made = Some(at);
    }

    /// A role that was made elsewhere.
    pub fn uses_existing_role(&mut self) {
        (self.spec.role, self.spec.role_arn) = (None, Some("arn:aws:iam::999999999999:role/partner".into()));
        (self.generation, self.has_role, self.was_ready) = (1, false, false);
        self.observed.role = Ok(None);
    }

    pub fn wants(&mut self, policies: &[&str]) {
        let role = self.spec.role.as_mut().unwrap();
        role.policy_arns = policies.iter().map(|p| (*p).to_owned()).collect();
    }
}

/// A step in the words of the tables.
pub fn name(step: &Step) -> String {
    let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
    match step {
        Step::AddFinalizer => "add finalizer".into(),
        Step::RemoveFinalizer => "remove finalizer".into(),
        Step::Own(Own::ForgetDigest) => "forget digest".into(),
        Step::Own(Own::Annotate(annotate)) => format!("annotate {}", annotate.annotations.len()),
        Step::Own(Own::Restart(workload)) => format!("restart {}", workload.name),
        Step::Own(Own::Lock(heir)) => format!("lock {}", heir.name),
        Step::Change(Change { write: Write::Iam(write), .. }) => match write {
            IamWrite::CreateRole(_) => "create".into(),
            IamWrite::PutTrust { document, .. } => {
                format!("trust {}", document["Statement"][0]["Effect"].as_str().unwrap())
            }
            IamWrite::PutBoundary { .. } => "boundary".into(),
            IamWrite::PutSettings { .. } => "settings".into(),
            IamWrite::AttachPolicy { policy, .. } => format!("attach {}", last(policy)),
            IamWrite::DetachPolicy { policy, .. } => format!("detach {}", last(policy)),
            IamWrite::PutInline { name, .. } => format!("put {name}"),
            IamWrite::DeleteInline { name, .. } => format!("remove {name}"),
            IamWrite::UntagRole { keys, .. } => format!("untag {}", keys.len()),
            IamWrite::TagRole { tags, .. } if tags.contains_key(names::tag::RETAINED) => {
                "mark as retained".into()
            }
            IamWrite::TagRole { tags, .. } if tags.contains_key(names::tag::FORMER_UNTIL) => {
                "begin move".into()
            }
            IamWrite::DeleteRole { .. } => "delete".into(),
            IamWrite::TagRole { tags, .. } => {
                let heir = tags.get(names::tag::NAME);
                heir.map_or_else(|| "tags".into(), |heir| format!("hand over to {heir}"))
            }
            other => panic!("{other:?}"),
        },
        Step::Change(other) => panic!("{other:?}"),
    }
}

/// A row: its name, what it changes, the steps, Ready with its companion, and all other conditions.
pub type Row<'a> = (&'a str, fn(&mut Case), &'a [&'a str], &'a str, &'a str);

/// Compares the plan of every row.
pub fn check(table: &[Row<'_>]) {
    for (row, change, steps, ready, others) in table {
        let mut case = Case::good();
        change(&mut case);
        let mut plan = case.plan();
        let names: Vec<String> = plan.steps.iter().map(name).collect();
        assert_eq!(
            types(&plan.conditions),
            [C::Granted, C::RoleReady, C::ServiceAccountAnnotated, C::PodsInjected],
            "{row}"
        );
        // It has a table of its own (`pods.rs`).
        plan.conditions.retain(|condition| condition.type_ != C::PodsInjected);
        assert_eq!(names, *steps, "{row}");
        assert_eq!(
            (summary(&plan.conditions).as_str(), verdicts(&plan.conditions).as_str()),
            (*ready, *others),
            "{row}"
        );
    }
}
