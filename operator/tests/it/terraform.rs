//! `operator bootstrap --output terraform`: what the file makes is what `bootstrap` makes. The file is read here as Terraform reads it,
//! attribute by attribute, and compared with simulated AWS after `bootstrap`.

use std::collections::BTreeMap;

use aws_sim::State;
use operator::cli::Mode;
use serde_json::{Map, Value, json};

use crate::bootstrap::writes;
use crate::world::{Flags, World, issuer};

/// Resources by type, each by name.
struct File(Value);

impl File {
    fn of(&self, kind: &str) -> Vec<(String, Map<String, Value>)> {
        let resources = self.0["resource"][kind].as_object().cloned().unwrap_or_default();
        resources.into_iter().map(|(name, resource)| (name, resource.as_object().unwrap().clone())).collect()
    }

    /// Everything that these resources make, in the form of [`made`].
    fn makes(&self) -> Value {
        let mut buckets: BTreeMap<String, Value> = BTreeMap::new();
        for (_, bucket) in self.of("aws_s3_bucket") {
            assert_eq!(bucket["bucket_namespace"], "account-regional");
            let made = json!({"region": bucket["region"], "tags": bucket["tags"], "objects": {}});
            buckets.insert(text(&bucket["bucket"]), made);
        }
        let mut with = |attribute: &str, kind: &str, value: &dyn Fn(&Map<String, Value>) -> Value| {
            for (_, resource) in self.of(kind) {
                buckets.get_mut(&text(&resource["bucket"])).unwrap()[attribute] = value(&resource);
            }
        };
        with("ownership", "aws_s3_bucket_ownership_controls", &|r| r["rule"]["object_ownership"].clone());
        with("policy", "aws_s3_bucket_policy", &|r| document(&r["policy"]));
        with("public_access_block", "aws_s3_bucket_public_access_block", &|r| {
            let flags =
                ["block_public_acls", "ignore_public_acls", "block_public_policy", "restrict_public_buckets"];
            flags.map(|flag| r[flag].clone()).into_iter().collect()
        });
        for (_, object) in self.of("aws_s3_object") {
            let made = json!({
                "body": object["content"], "content_type": object["content_type"], "cache_control": object["cache_control"],
                "encryption": object["server_side_encryption"],
            });
            buckets.get_mut(&text(&object["bucket"])).unwrap()["objects"][text(&object["key"])] = made;
        }
        let providers = self.of("aws_iam_openid_connect_provider").into_iter().map(|(_, provider)| {
            json!({"url": provider["url"], "client_ids": provider["client_id_list"], "tags": provider["tags"]})
        });
        let policies = self.of("aws_iam_policy").into_iter().map(|(_, policy)| {
            json!({
                "name": policy["name"], "path": policy["path"], "tags": policy["tags"], "document": document(&policy["policy"]),
            })
        });
        let inline = |role: &Value| -> Value {
            let of_role =
                self.of("aws_iam_role_policy").into_iter().filter(|(_, policy)| policy["role"] == *role);
            of_role.map(|(_, policy)| (text(&policy["name"]), document(&policy["policy"]))).collect()
        };
        let roles = self.of("aws_iam_role").into_iter().map(|(_, role)| {
            json!({
                "name": role["name"], "path": role["path"], "trust": document(&role["assume_role_policy"]),
                "max_session_duration": role["max_session_duration"], "description": role["description"], "tags": role["tags"],
                "boundary": role.get("permissions_boundary"), "inline": inline(&role["name"]),
            })
        });
        json!({
            "buckets": buckets, "providers": sorted(providers), "policies": sorted(policies), "roles": sorted(roles),
        })
    }

    /// The addresses of all resources, and those that must be made before each.
    fn order(&self) -> BTreeMap<String, Vec<String>> {
        let all = self.0["resource"].as_object().unwrap();
        let resources = all.iter().flat_map(|(kind, of_kind)| {
            of_kind.as_object().unwrap().iter().map(move |(name, resource)| {
                let after = resource.get("depends_on").and_then(Value::as_array).cloned().unwrap_or_default();
                (format!("{kind}.{name}"), after.iter().map(text).collect())
            })
        });
        resources.collect()
    }
}

/// A text as Terraform reads it.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap().replace("$${", "\u{1}").replace("%%{", "\u{2}");
    assert!(!text.contains("${") && !text.contains("%{"), "a template: {text}");
    text.replace('\u{1}', "${").replace('\u{2}', "%{")
}

fn document(value: &Value) -> Value {
    serde_json::from_str(&text(value)).unwrap()
}

fn sorted(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut values: Vec<Value> = values.collect();
    values.sort_by_key(Value::to_string);
    values
}

/// What is in simulated AWS; the policies `storage` and `queue` are the world's.
fn made(state: &State) -> Value {
    let buckets = state.buckets.iter().map(|(name, bucket)| {
        let objects = bucket.objects.iter().map(|(key, object)| {
            let made = json!({
                "body": String::from_utf8_lossy(&object.body), "content_type": object.content_type,
                "cache_control": object.cache_control, "encryption": json!(object.encryption).as_str().unwrap().to_uppercase(),
            });
            (key.clone(), made)
        });
        let made = json!({
            "region": bucket.region, "tags": bucket.tags, "ownership": bucket.ownership, "policy": bucket.policy,
            "public_access_block": bucket.public_access_block, "objects": objects.collect::<BTreeMap<_, _>>(),
        });
        (name.clone(), made)
    });
    let providers = state.providers.values().map(|provider| {
        json!({
            "url": format!("https://{}", provider.url), "client_ids": provider.client_ids, "tags": provider.tags,
        })
    });
    let policies = state.policies.values().filter(|policy| policy.path != "/").map(|policy| {
        json!({"name": policy.name, "path": policy.path, "tags": policy.tags, "document": policy.document()})
    });
    let roles = state.roles.values().map(|role| {
        json!({
            "name": role.name, "path": role.path, "trust": role.trust, "max_session_duration": role.max_session_duration,
            "description": role.description, "tags": role.tags, "boundary": role.boundary, "inline": role.inline,
        })
    });
    json!({
        "buckets": buckets.collect::<BTreeMap<_, _>>(), "providers": sorted(providers), "policies": sorted(policies),
        "roles": sorted(roles),
    })
}

#[tokio::test]
async fn the_terraform_file_makes_what_bootstrap_makes() {
    const BOUNDARY: &str = "arn:aws:iam::111122223333:policy/storage";
    let world = World::new().await;
    let mut spec = world.spec();
    spec.tags.insert("team".into(), "platform".into());
    let (_, printed) = world.bootstrap_options(&spec, Mode::Terraform, Some(BOUNDARY)).await.unwrap();
    assert_eq!(writes(&world), [""; 0]);
    let file = File(serde_json::from_str(&printed).unwrap());
    let order = file.order();
    for (resource, after) in &order {
        assert!(after.iter().all(|other| order.contains_key(other)), "{resource}: {after:?}");
    }
    // IAM reads the documents when the provider is made, and they are public by the policy.
    let provider = &order["aws_iam_openid_connect_provider.default"];
    assert_eq!(*provider, ["aws_s3_object.default_discovery_document", "aws_s3_object.default_jwks"]);
    assert_eq!(order["aws_s3_object.default_jwks"], ["aws_s3_bucket_policy.default"]);
    assert_eq!(order["aws_s3_bucket_policy.default"], ["aws_s3_bucket_public_access_block.default"]);

    let makes = file.makes();
    world.bootstrap_options(&spec, Mode::Make, Some(BOUNDARY)).await.unwrap();
    assert_eq!(makes, made(&world.sim.state()));
    // And once that is there, the file is the same.
    let (_, again) = world.bootstrap_options(&spec, Mode::Terraform, Some(BOUNDARY)).await.unwrap();
    assert_eq!(again, printed);
}

#[tokio::test]
async fn the_terraform_file_of_several_issuers_has_each_of_them() {
    let world = World::new().await;
    let mut next = world.spec();
    next.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
    let issuers = [issuer("default", &world.spec()), issuer("1.next", &next)];
    let flags = Flags { terraform: true, ..Flags::default() };
    let printed = world.bootstrap_all(&issuers, flags, &world.client).await.unwrap();
    let file = File(serde_json::from_str(&printed).unwrap());
    let names: Vec<String> = file.of("aws_s3_bucket").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["_1_next", "default"]);
    assert_eq!(file.order()["aws_s3_object._1_next_jwks"], ["aws_s3_bucket_policy._1_next"]);
    world.bootstrap_all(&issuers, Flags::default(), &world.client).await.unwrap();
    assert_eq!(file.makes(), made(&world.sim.state()));
}
