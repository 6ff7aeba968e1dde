//! The OpenAPI document is what the service does: schemathesis makes requests of it, sound ones and broken ones, and finds
//! no answer that the document does not name, no request that is taken although it breaks the schema, and none that is
//! refused although it keeps it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::process::Stdio;

use support::World;
use xtask::{binaries, testing::off_runtime};

/// Examples of each kind for each operation: some 1,300 requests a run, in half a minute.
const EXAMPLES: &str = "30";
/// Random requests are the same in every run.
const SEED: &str = "20";

/// What the run must leave out: calls that end the session of the token that it goes on with.
const ENDS_THE_SESSION: &str = "^/v1/(auth/logout|devices/.*)$";

fn check(url: &str, more: &[&str]) {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/schemathesis.toml");
    let output = off_runtime(|| {
        binaries::schemathesis()
            .unwrap()
            .args(["--config-file", config, "run", &format!("{url}/openapi.json"), "--no-color"])
            .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED])
            .args(["--generation-database", "none", "--warnings", "off"])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let report = String::from_utf8_lossy(&output.stdout);
    let shown: Vec<&str> = report.lines().map(|line| line.get(..400).unwrap_or(line)).collect();
    assert!(output.status.success(), "{}\n{}", shown.join("\n"), String::from_utf8_lossy(&output.stderr));
    let requests: Option<usize> =
        report.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse().ok());
    assert!(requests.is_some_and(|requests| requests > 1_000), "{}", shown.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_document_is_what_the_service_does() {
    let world = World::start("openapi", 1, &[]).await;
    let user = world.user("Ada").await;
    let token = format!("Authorization: Bearer {}", user.token);
    check(&world.urls[0], &["-H", &token, "--exclude-path-regex", ENDS_THE_SESSION]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_document_is_what_the_service_does() {
    let world = World::start("openapi_anonymous", 1, &[]).await;
    check(&world.urls[0], &[]);
}
