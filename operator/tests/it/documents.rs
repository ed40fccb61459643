//! The documentation and the chart agree with the code.

use std::collections::BTreeSet;

use aws_sim::policy::{Context, Query, Verdict, evaluate};
use clap::{Args, Command};
use crds::Reason;
use operator::timings::Timings;

use crate::recipes::RECIPES;
use crate::structure::{exists, files, read};
use crate::world::ACCOUNT;

#[test]
fn docs_reasons_explains_exactly_the_existing_reasons() {
    let explained: Vec<String> = read("docs/reasons.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(explained, known);
}

#[test]
fn docs_reasons_says_of_each_reason_where_it_is_what_it_means_and_what_to_do() {
    let document = read("docs/reasons.md");
    for section in document.split("\n## ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        for row in ["Where", "Meaning", "What to do"] {
            let (_, rest) =
                text.split_once(&format!("| {row} | ")).unwrap_or_else(|| panic!("{name}: no {row}"));
            let (cell, after) = rest.split_once(" |\n").unwrap();
            assert!(cell.len() >= 5 && !cell.contains('\n'), "{name}: {row}: {cell:?}");
            let is_followed =
                |text: &str| text.starts_with("```") || text.starts_with("| ") || text.starts_with("- ");
            assert!(!cell.ends_with(':') || is_followed(after.trim_start()), "{name}: {row} ends: {cell:?}");
        }
    }
}

#[test]
fn every_flag_of_timings_is_a_chart_value() {
    let command = Timings::augment_args(Command::new("operator"));
    let flags: BTreeSet<String> =
        command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
    let schema: serde_json::Value =
        serde_json::from_str(&read("charts/pod-identity-operator/values.schema.json")).unwrap();
    let timings = &schema["properties"]["operator"]["properties"]["timings"];
    let values: BTreeSet<String> = timings["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(|key| {
            key.chars()
                .flat_map(|c| if c.is_uppercase() { vec!['-', c.to_ascii_lowercase()] } else { vec![c] })
                .collect()
        })
        .collect();
    assert_eq!(flags, values);
    assert_eq!(timings["additionalProperties"], false, "a misspelt value is refused");
}

/// The blocks of a document between fences of that language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let parts = document.split(&begin).skip(1);
    parts.map(|part| part.split_once("```").unwrap_or_else(|| panic!("an open block: {part}")).0).collect()
}

#[test]
fn the_guide_shows_each_recipe_in_its_own_words() {
    let guide = read("docs/bindings.md");
    let recipes = files(RECIPES);
    let shown: BTreeSet<String> = links(&guide)
        .filter_map(|link| link.strip_prefix("../examples/recipes/").map(str::to_owned))
        .collect();
    assert_eq!(shown, recipes.iter().cloned().collect(), "each is linked, and each link has its file");
    let texts: Vec<String> = recipes.iter().map(|file| read(&format!("{RECIPES}/{file}"))).collect();
    // What a file says of itself: in which section it is.
    for (file, text) in recipes.iter().zip(&texts) {
        let (_, place) =
            text.split_once("docs/bindings.md, \"").unwrap_or_else(|| panic!("{file}: no section"));
        let heading = format!("{}\n", place.split_once('"').unwrap().0);
        let section = guide.split("\n## ").find(|section| section.starts_with(&heading));
        assert!(
            section.is_some_and(|section| section.contains(&format!("({0}/{file})", "../examples/recipes"))),
            "{file}"
        );
    }
    // What is another project's says so itself; indented lines are part of a list.
    let ours = |block: &&str| {
        block.starts_with("spec:\n  serviceAccountName:")
            || block.contains("grants:")
            || block.contains("apiVersion: podidentity.dev/")
    };
    let blocks: Vec<&str> = blocks(&guide, "yaml").into_iter().filter(ours).collect();
    assert_eq!(blocks.len(), recipes.len(), "one block for each recipe");
    for block in blocks {
        assert!(texts.iter().any(|text| text.contains(block)), "no recipe has this text:\n{block}");
    }
}

#[test]
fn the_boundary_refuses_what_the_guide_says() {
    let guide = read("docs/bindings.md");
    let section =
        guide.split("\n## ").find(|section| section.starts_with("What the boundary refuses")).unwrap();
    let bucket = ["arn:aws:s3:::b".to_owned(), "arn:aws:s3:::b/*".to_owned()];
    let boundary = operator::policy::boundary::policy("aws", ACCOUNT, &bucket);
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut count = 0;
    for row in rows {
        let needs = row.split(" | ").nth(1).unwrap();
        let actions = needs.split('`').skip(1).step_by(2).filter(|code| code.contains(':'));
        let mut of_row = 0;
        for action in actions {
            let resource = if action == "sts:AssumeRole" { "arn:aws:iam::111122223333:role/x" } else { "*" };
            let context = Context::new();
            let query = Query { action, resource: Some(resource), principal: None, context: &context };
            assert_eq!(evaluate(&boundary, query), Verdict::Deny, "{action} in {row}");
            of_row += 1;
        }
        assert!(of_row > 0, "no action: {row}");
        count += of_row;
    }
    assert!(count > 30, "{count}");
}

/// Targets of the links of a document.
fn links(document: &str) -> impl Iterator<Item = &str> {
    document.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = document.lines().filter_map(|line| {
        fenced ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        (!fenced && text.len() < line.len()).then(|| text.trim())
    });
    let keep = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || "-_".contains(c) => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    headings.map(|heading| heading.chars().filter_map(keep).collect()).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let guides = files("docs").into_iter().map(|file| format!("docs/{file}"));
    let others = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    let mut checked = 0;
    for document in guides.chain(others.map(str::to_owned)) {
        let text = read(&document);
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = match (path, folder) {
                ("", _) => document.clone(),
                (path, "") => path.to_owned(),
                (path, folder) => format!("{folder}/{path}"),
            };
            assert!(exists(&path), "{document}: there is no {path}");
            let known = || anchors(&read(&path)).contains(anchor);
            assert!(anchor.is_empty() || known(), "{document}: {path} has no heading {anchor}");
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked}");
}
