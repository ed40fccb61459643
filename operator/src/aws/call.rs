//! What every AWS call passes through: each attempt is counted by an interceptor, SDK retries included, and each answer is
//! classified here and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::cause::{cause, chain, root_cause, stable_cause};
use super::classify::classify;
use super::credentials::KeptCredentials;
use super::error::{AwsError, Cause, Class};
use super::limit::{Limits, Service};
use crate::metrics::Metrics;

/// The exchange of a token for credentials.
pub(super) const TOKEN_EXCHANGE: &str = "sts:AssumeRoleWithWebIdentity";

/// Shared by all clients of one set of credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    metrics: Arc<Metrics>,
    limits: Limits,
    /// The credentials that calls are signed with.
    credentials: Option<KeptCredentials>,
    /// Whether AWS refused the credentials since their identity was asked for.
    refused: Arc<AtomicBool>,
}

impl Calls {
    pub(super) fn new(metrics: Arc<Metrics>, limits: Limits, credentials: Option<KeptCredentials>) -> Self {
        Self { metrics, limits, credentials, refused: Arc::default() }
    }

    /// The same for calls that are signed with other credentials: what AWS says of those is not about ours.
    pub(super) fn of_other_credentials(&self) -> Self {
        Self { credentials: None, refused: Arc::default(), ..self.clone() }
    }

    /// Returns once the operation may be called. Before the SDK's time limits begin.
    pub(super) async fn permit(&self, operation: &'static str) {
        if let Some(service) = Service::of(operation) {
            self.limits.permit(service).await;
        }
    }

    /// Counts a call and classifies its failure.
    pub(super) fn record<T, E>(
        &self,
        operation: &'static str,
        resource: &str,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, AwsError>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let answer = answer.map_err(|error| error_of(operation, resource, &error));
        let outcome = answer.as_ref().map_or_else(|error| error.class.label(), |_| "ok");
        self.metrics.aws_call(operation, outcome);
        if let Err(error) = &answer {
            let AwsError { code, detail, class, .. } = error;
            tracing::debug!(operation, resource, outcome, code, detail, "AWS call failed");
            // A token that STS refuses in exchange for credentials says nothing of the credentials in use.
            if *class == Class::Credentials && operation != TOKEN_EXCHANGE {
                self.refused.store(true, Ordering::Relaxed);
                // Without a code the call was not sent: there were no credentials to refuse.
                if let Some(credentials) = self.credentials.as_ref().filter(|_| !code.is_empty()) {
                    credentials.refused();
                }
            }
        }
        answer
    }

    /// Whether AWS refused the credentials since this was last asked: the next ones may be of another role.
    pub(super) fn were_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    /// The first attempt has its permit. The SDK waits before it repeats one; that takes a permit from the calls that follow.
    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        configuration: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_repeated =
            configuration.load::<RequestAttempts>().is_some_and(|attempts| attempts.attempts() > 1);
        let service = configuration.load::<Metadata>().and_then(|metadata| Service::of(metadata.service()));
        if let Some(service) = service.filter(|_| is_repeated) {
            self.limits.take(service);
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        configuration: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(metadata) = configuration.load::<Metadata>() {
            let status = context.response().map_or(0, |response| response.status().as_u16());
            self.metrics.aws_attempt(metadata.service(), metadata.name(), status);
        }
        Ok(())
    }
}

fn error_of<E>(operation: &'static str, resource: &str, error: &SdkError<E, HttpResponse>) -> AwsError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
    let text = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let class = match error {
        SdkError::ServiceError(_) => classify(code, text, status),
        _ if is_of_credentials(error) && is_refused_token(error) => Class::LockedOut,
        _ if is_of_credentials(error) => Class::Credentials,
        _ => Class::Transient,
    };
    let message = match (class, text.is_empty()) {
        (Class::LockedOut, true) => stable_cause(error),
        (Class::Credentials, true) => {
            "AWS credentials could not be obtained: ".to_owned() + &stable_cause(error)
        }
        (_, true) if code.is_empty() => root_cause(error),
        (_, true) => code.to_owned(),
        (_, false) => text.to_owned(),
    };
    let cause = match error {
        SdkError::TimeoutError(_) => Some(Cause::TimedOut),
        _ if status == 0 => cause(error),
        _ => None,
    };
    let answered_without_code = code.is_empty() && status != 0;
    AwsError {
        class,
        operation,
        resource: resource.to_owned(),
        code: if answered_without_code { status.to_string() } else { code.to_owned() },
        cause,
        message,
        detail: DisplayErrorContext(error).to_string(),
    }
}

fn is_of_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).any(<dyn std::error::Error>::is::<CredentialsError>)
}

/// Whether STS answered the exchange of the operator's token with `InvalidIdentityToken`.
fn is_refused_token(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).any(|one| one.to_string().contains("InvalidIdentityToken"))
}
