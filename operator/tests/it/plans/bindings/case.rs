//! What a row of the tables starts from, and the words for its steps.

use binding::decide::decide;
use binding::model::{
    Holder, Memory, Observed, Plan, RoleState, ServiceAccountState, Step, Unresolved, View,
};
use binding::role::target;

use super::super::*;

/// Everything a row may change; as it is: Ready, and nothing to do.
#[allow(clippy::struct_excessive_bools, reason = "each is what a row may change")]
pub struct Case {
    pub issuer: Option<OidcIssuerSpec>,
    pub issuer_deleting: bool,
    pub account: Result<&'static str, AwsError>,
    pub spec: PodIdentityBindingSpec,
    pub namespace: &'static str,
    pub generation: i64,
    pub age: Duration,
    pub deleting: bool,
    pub finalizer: bool,
    pub was_ready: bool,
    pub holder: Option<Holder>,
    pub observed: Observed,
    pub memory: Memory,
    pub clock: Clock,
}

impl Case {
    pub fn view(&self) -> View {
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
            was_ready: self.was_ready && !self.deleting,
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
    pub fn good() -> Self {
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
        Step::Own(annotate) => format!("annotate {}", annotate.annotations.len()),
        Step::Change(Change { write: Write::Iam(write), .. }) => match write {
            IamWrite::CreateRole(_) => "create".into(),
            IamWrite::PutTrust { document, .. } => {
                format!("trust {}", document["Statement"][0]["Effect"].as_str().unwrap())
            }
            IamWrite::PutBoundary { .. } => "boundary".into(),
            IamWrite::PutSettings { .. } => "settings".into(),
            IamWrite::AttachPolicy { policy, .. } => format!("attach {}", last(policy)),
            IamWrite::DetachPolicy { policy, .. } => format!("detach {}", last(policy)),
            IamWrite::DeleteInline { name, .. } => format!("remove {name}"),
            IamWrite::DeleteRole { .. } => "delete".into(),
            other => panic!("{other:?}"),
        },
        Step::Change(other) => panic!("{other:?}"),
    }
}
