//! Trials: many of them in a round, with all their objects in one random order; in between the cluster's one issuer is deleted
//! and created again.

use std::collections::VecDeque;
use std::sync::Mutex;

use crds::names::label;
use serde_json::{Value, json};

use crate::api::{Api, accounts, bindings};
use crate::world::{ROLE, World};

/// Concurrent requests to the API server.
const WORKERS: usize = 8;
/// By which the trials' pods are found.
pub const LABEL: &str = "trial";
const ISSUERS: &str = "/apis/podidentity.dev/v1alpha1/oidcissuers";

/// What a trial's user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// An identity if there is one.
    Lenient,
    /// The namespace is labelled: no pod of a bound `ServiceAccount` without its identity.
    RequiredByNamespace,
    /// The pod is labelled: none without its identity.
    RequiredByPod,
}

/// One namespace with one workload.
#[derive(Debug, Clone)]
pub struct Trial {
    pub namespace: String,
    pub want: Want,
    /// Whether the role's ARN has to be computed, for which account and partition must be known.
    pub computed: bool,
    /// The namespace, as it is made.
    labelled: Value,
    /// The value of its pod's label [`LABEL`].
    label: &'static str,
}

impl Trial {
    fn new(world: &World, round: usize, number: usize) -> Self {
        let wants = [Want::Lenient, Want::RequiredByNamespace, Want::RequiredByPod];
        let want = wants[number % wants.len()];
        let namespace = format!("{}-{round}-{number}", world.name);
        let labels = match want {
            Want::RequiredByNamespace => json!({label::REQUIRE: "true"}),
            _ => json!({}),
        };
        Self {
            labelled: world.namespace_object(&namespace, labels),
            namespace,
            want,
            computed: (number / wants.len()).is_multiple_of(2),
            label: world.name,
        }
    }

    fn binding(&self) -> Value {
        let mut spec = json!({"serviceAccountName": "app"});
        if self.computed {
            spec["role"] = json!({});
        } else {
            spec["roleARN"] = json!(ROLE);
        }
        json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
            "metadata": {"name": "app"}, "spec": spec,
        })
    }

    fn deployment(&self) -> Value {
        let mut labels = json!({"app": "app", LABEL: self.label});
        if self.want == Want::RequiredByPod {
            labels[label::REQUIRE] = json!("true");
        }
        let template = json!({
            "metadata": {"labels": labels},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app"}]},
        });
        let spec = json!({"selector": {"matchLabels": {"app": "app"}}, "template": template});
        json!({"metadata": {"name": "app"}, "spec": spec})
    }
}

/// A trial's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Namespace,
    Account,
    Binding,
    Deployment,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A trial's object is made.
    Make(usize, What),
    /// The next step of the issuer: it is deleted, created again, and gets its status.
    Issuer,
}

/// The steps of a round, in no order.
pub fn steps(trials: usize) -> Vec<Step> {
    let objects = [What::Namespace, What::Account, What::Binding, What::Deployment];
    let makes = (0..trials).flat_map(|trial| objects.map(|what| Step::Make(trial, what)));
    makes.chain([Step::Issuer; 3]).collect()
}

/// Trials with objects that are created at the same time.
pub struct Round {
    pub trials: Vec<Trial>,
    steps: Mutex<VecDeque<Step>>,
    /// How many of the issuer's steps have started; locked until a step is done.
    issuer: tokio::sync::Mutex<usize>,
    api: Api,
}

impl Round {
    pub fn new(world: &World, number: usize, steps: Vec<Step>) -> Self {
        let count = steps.iter().filter(|step| matches!(step, Step::Make(_, What::Namespace))).count();
        Self {
            trials: (0..count).map(|trial| Trial::new(world, number, trial)).collect(),
            steps: Mutex::new(steps.into()),
            issuer: tokio::sync::Mutex::default(),
            api: world.api.clone(),
        }
    }

    /// Runs all steps. An object whose namespace does not exist yet is retried, after everything else.
    pub async fn run(&self) {
        futures::future::join_all((0..WORKERS).map(|_| self.work())).await;
    }

    async fn work(&self) {
        loop {
            // A separate statement, so that the lock is released before the step.
            let step = self.steps.lock().unwrap().pop_front();
            match step {
                Some(Step::Make(trial, what)) => {
                    if !self.make(trial, what).await {
                        self.steps.lock().unwrap().push_back(Step::Make(trial, what));
                    }
                }
                Some(Step::Issuer) => self.issuer().await,
                None => return,
            }
        }
    }

    /// Returns whether the object's namespace exists.
    async fn make(&self, trial: usize, what: What) -> bool {
        let trial = &self.trials[trial];
        let namespace = &trial.namespace;
        let (list, object) = match what {
            What::Namespace => ("/api/v1/namespaces".to_owned(), trial.labelled.clone()),
            What::Account => (accounts(namespace), json!({"metadata": {"name": "app"}})),
            What::Binding => (bindings(namespace), trial.binding()),
            What::Deployment => {
                (format!("/apis/apps/v1/namespaces/{namespace}/deployments"), trial.deployment())
            }
        };
        match self.api.create(&list, &object).await {
            Ok(_) => true,
            Err(refusal) if refusal.code == 404 => false,
            Err(refusal) => panic!("{list}: {refusal:?}"),
        }
    }

    /// The issuer's next step.
    async fn issuer(&self) {
        let mut done = self.issuer.lock().await;
        *done += 1;
        let default = format!("{ISSUERS}/default");
        match *done {
            1 => match self.api.delete(&default).await {
                Ok(_) => {}
                // The first round has none yet.
                Err(refusal) => assert_eq!(refusal.code, 404, "{refusal:?}"),
            },
            2 => {
                let issuer = json!({
                    "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer",
                    "metadata": {"name": "default"},
                    "spec": {
                        "clusterName": "homelab",
                        "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
                    },
                });
                self.api.create(ISSUERS, &issuer).await.unwrap();
            }
            _ => {
                // As the operator does after its first reconcile.
                let status = json!({"status": {"accountID": "111122223333", "partition": "aws"}});
                self.api.merge(&format!("{default}/status"), &status).await.unwrap();
            }
        }
    }
}
