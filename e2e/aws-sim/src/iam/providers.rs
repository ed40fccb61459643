//! OIDC providers.

use aws_sim_api::Provider;

use super::call::IamCall;
use super::validate::{checked, limit};
use super::xml::tags_xml;
use crate::authz::tag_context;
use crate::wire::{ApiError, element};

const QUOTA_PROVIDERS: usize = 100;
const QUOTA_CLIENT_IDS: usize = 100;
/// What IAM has retrieved itself where the request names no thumbprint.
const THUMBPRINT: &str = "9e99a48a9960b14926bb7f3b02e22da2b0ab7280";

impl IamCall<'_> {
    pub(super) fn create_provider(&mut self) -> Result<String, ApiError> {
        let request = self.request;
        let url = request.required("Url")?;
        let bare = url.strip_prefix("https://").unwrap_or_default();
        let arn = format!("arn:aws:iam::{}:oidc-provider/{bare}", self.account_id);
        let (ids, tags) = (request.members("ClientIDList"), checked(request.tags())?);
        self.authorize("CreateOpenIDConnectProvider", &arn, tag_context(&tags))?;
        if !tags.is_empty() {
            self.authorize("TagOpenIDConnectProvider", &arn, tag_context(&tags))?;
        }
        let (host, path) = bare.split_once('/').unwrap_or((bare, "none"));
        // A path may end with a slash: the providers of Azure AKS do.
        if host.is_empty() || path.is_empty() || url.contains('?') || host.contains(':') {
            return Err(ApiError::new(400, "InvalidInput", "Invalid Open ID Connect Provider URL"));
        }
        if self.account.state.providers.contains_key(&arn) {
            return Err(ApiError::new(
                409,
                "EntityAlreadyExists",
                format!("Provider with url {url} already exists."),
            ));
        }
        if self.account.state.providers.len() >= QUOTA_PROVIDERS {
            return Err(limit("OpenIdConnectProvidersPerAccount", QUOTA_PROVIDERS));
        }
        if ids.len() > QUOTA_CLIENT_IDS {
            return Err(limit("ClientIdsPerOpenIdConnectProvider", QUOTA_CLIENT_IDS));
        }
        if !self.contacted {
            return Err(ApiError::new(
                400,
                "OpenIdIdpCommunicationError",
                "Please check .well-known/openid-configuration provided by the provider is valid and reachable.",
            ));
        }
        let provider = Provider { url: bare.to_owned(), client_ids: ids, tags };
        self.account.state.providers.insert(arn.clone(), provider);
        Ok(element("OpenIDConnectProviderArn", &arn))
    }

    pub(super) fn get_provider(&mut self) -> Result<String, ApiError> {
        let arn = self.request.required("OpenIDConnectProviderArn")?.to_owned();
        self.authorize(self.action, &arn, Vec::new())?;
        let provider = self.seen().provider(&arn).ok_or_else(|| missing(&arn))?;
        let ids: String = provider.client_ids.iter().map(|id| element("member", id)).collect();
        Ok(format!(
            "{}<ClientIDList>{ids}</ClientIDList><ThumbprintList>{}</ThumbprintList>{}",
            element("Url", &provider.url),
            element("member", THUMBPRINT),
            tags_xml(&provider.tags)
        ))
    }

    /// Every change of an existing provider.
    pub(super) fn change_provider(&mut self) -> Result<String, ApiError> {
        let arn = self.request.required("OpenIDConnectProviderArn")?.to_owned();
        let tags = checked(self.request.tags())?;
        self.authorize(self.action, &arn, tag_context(&tags))?;
        if self.action == "DeleteOpenIDConnectProvider" {
            self.account.state.providers.remove(&arn);
            return Ok(String::new());
        }
        let provider = self.account.state.providers.get_mut(&arn).ok_or_else(|| missing(&arn))?;
        if self.action == "TagOpenIDConnectProvider" {
            provider.tags.extend(tags);
            return Ok(String::new());
        }
        let id = self.request.required("ClientID")?.to_owned();
        provider.client_ids.retain(|have| *have != id);
        if self.action == "AddClientIDToOpenIDConnectProvider" {
            if provider.client_ids.len() >= QUOTA_CLIENT_IDS {
                return Err(limit("ClientIdsPerOpenIdConnectProvider", QUOTA_CLIENT_IDS));
            }
            provider.client_ids.push(id);
        }
        Ok(String::new())
    }

    pub(super) fn list_providers(&mut self) -> Result<String, ApiError> {
        self.authorize("ListOpenIDConnectProviders", "*", Vec::new())?;
        let member = |arn: &String| format!("<member>{}</member>", element("Arn", arn));
        let members: String = self.seen().providers().into_iter().map(|(arn, _)| member(arn)).collect();
        Ok(format!("<OpenIDConnectProviderList>{members}</OpenIDConnectProviderList>"))
    }
}

fn missing(arn: &str) -> ApiError {
    ApiError::new(404, "NoSuchEntity", format!("OpenIDConnect Provider not found for arn {arn}"))
}
