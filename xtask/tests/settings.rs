//! `.env.example` lists what the services take, no more and no less.

use std::process::Command;

#[test]
fn env_example_is_what_help_says() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["settings", "--check"]).output().expect("xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    // Addresses hold passwords: as users write them, and where a client would look for them.
    let secret = "s3cret-of-the-operator";
    let addresses = ["MT_NATS_URL", "MT_POSTGRES_URL", "MT_REDIS_URL", "MT_OTLP_ENDPOINT"];
    for program in ["gateway", "projector", "presence", "streams", "sql"] {
        let program = xtask::testing::binary(program).expect("a build");
        for arguments in [vec!["--help"], vec!["-h"], vec!["--no-such-option"]] {
            let mut command = Command::new(&program);
            command.args(&arguments);
            for name in addresses {
                command.env(name, format!("x://user:{secret}@127.0.0.1:1/x"));
            }
            let output = command.output().expect("its help");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains(secret), "{} {arguments:?}: {said}", program.display());
            assert!(said.contains("Usage"), "{said}");
        }
    }
}
