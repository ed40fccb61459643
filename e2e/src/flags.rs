//! The flags of kube-apiserver that `operator bootstrap` prints, as an administrator copies them.

use cluster::Tokens;

/// The flags about tokens in the output of `operator bootstrap`: each is a line, and what follows three spaces and `#` is a
/// comment. The keys stay as they are.
#[must_use]
pub fn printed(output: &str) -> Tokens {
    let mut tokens = Tokens { issuers: Vec::new(), api_audiences: Vec::new(), ..Tokens::kubeadm() };
    for line in output.lines() {
        let flag = line.split("   #").next().unwrap_or_default().trim_end();
        if let Some(issuer) = flag.strip_prefix("--service-account-issuer=") {
            tokens.issuers.push(issuer.to_owned());
        } else if let Some(audiences) = flag.strip_prefix("--api-audiences=") {
            tokens.api_audiences.extend(audiences.split(',').map(str::to_owned));
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_without_their_comments() {
        let output = "\
API server flags (docs/issuer-flags.md says where)
--service-account-issuer=https://new.example.com/homelab
--service-account-issuer=https://old.example.com   # stays accepted for running pods
--api-audiences=https://old.example.com,other   # unless it is set already
# to issue tokens under OidcIssuer other instead, put https://other.example.com first

chart values
";
        let tokens = printed(output);
        assert_eq!(tokens.issuers, ["https://new.example.com/homelab", "https://old.example.com"]);
        assert_eq!(tokens.api_audiences, ["https://old.example.com", "other"]);
        assert_eq!((tokens.signing_key, tokens.accepted_keys), (Tokens::kubeadm().signing_key, Vec::new()));
    }
}
