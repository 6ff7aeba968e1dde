//! `cargo xtask settings`: keeps `.env.example` what the services' `--help` says, which is the reference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::testing::binary;

use crate::suite::workspace;

const FILE: &str = ".env.example";
/// In the order of the file's sections.
const PROGRAMS: [&str; 5] = ["gateway", "projector", "presence", "streams", "sql"];
const HEAD: &str = "\
# Every setting of every service, with its default: set what differs in the environment, or in the .env of compose.yaml.
# Written by `cargo xtask settings` from the services' --help; a test keeps it so.
";

#[derive(Debug, clap::Args)]
pub(crate) struct SettingsArgs {
    /// Change nothing; fail if the file is not as it should be.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: String,
    help: String,
    default: String,
}

pub(crate) fn run(args: &SettingsArgs) -> Result<ExitCode> {
    let mut programs = Vec::new();
    for program in PROGRAMS {
        programs.push((program, settings(&help(program)?)));
    }
    let wanted = render(&programs);
    let path = workspace().join(FILE);
    if args.check {
        let found = fs::read_to_string(&path).unwrap_or_default();
        ensure!(found == wanted, "{FILE} is not what --help says: run `cargo xtask settings`");
    } else {
        fs::write(&path, wanted).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn help(program: &str) -> Result<String> {
    let mut command = xtask::process::command(binary(program)?);
    // clap prints the values that the environment holds.
    command.env_clear();
    let output = command.arg("--help").output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("`{program} --help` failed");
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The options that have an environment variable. clap prints `--flag <VALUE> help [env: NAME=] [default: value]`,
/// wrapped at spaces.
fn settings(help: &str) -> Vec<Setting> {
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split(" --").skip(1).filter_map(setting).collect()
}

fn setting(option: &str) -> Option<Setting> {
    let (head, rest) = option.split_once(" [env: ")?;
    let (name, rest) = rest.split_once(']')?;
    let default = rest
        .split_once("[default: ")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(value, _)| value);
    let help = head.split_once("> ").map_or("", |(_, help)| help);
    Some(Setting {
        name: name.split('=').next()?.to_owned(),
        help: help.to_owned(),
        default: default.trim_matches('"').to_owned(),
    })
}

fn render(programs: &[(&str, Vec<Setting>)]) -> String {
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (program, settings) in programs {
        for setting in settings {
            users.entry(&setting.name).or_default().push(program);
        }
    }
    let mut text = HEAD.to_owned();
    let shared: Vec<&Setting> = programs
        .iter()
        .enumerate()
        .flat_map(|(at, (_, settings))| settings.iter().map(move |setting| (at, setting)))
        // Each once, where it comes first.
        .filter(|(at, setting)| {
            let users = &users[setting.name.as_str()];
            users.len() > 1 && users[0] == programs[*at].0
        })
        .map(|(_, setting)| setting)
        .collect();
    section(&mut text, "of several services", &shared);
    for (program, settings) in programs {
        let own: Vec<&Setting> =
            settings.iter().filter(|setting| users[setting.name.as_str()].len() == 1).collect();
        if !own.is_empty() {
            section(&mut text, &format!("of {program}"), &own);
        }
    }
    text
}

fn section(text: &mut String, title: &str, settings: &[&Setting]) {
    // Writing to a String can't fail.
    write!(text, "\n# ---- {title}\n").ok();
    for Setting { name, help, default } in settings {
        write!(text, "\n# {help}\n#{name}={default}\n").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_read_however_it_is_wrapped() {
        let help = "Options:\n      --nats-url <NATS_URL>\n          Servers, by commas [env: MT_NATS_URL]\n          \
                    [default: nats://127.0.0.1:4222]\n      --prefix <PREFIX>\n          Put before [env:\n          \
                    MT_PREFIX=] [default: \"\"]\n  -h, --help\n          Print help\n";
        let setting = |name: &str, help: &str, default: &str| Setting {
            name: name.to_owned(),
            help: help.to_owned(),
            default: default.to_owned(),
        };
        let found = settings(help);
        assert_eq!(
            found,
            [
                setting("MT_NATS_URL", "Servers, by commas", "nats://127.0.0.1:4222"),
                setting("MT_PREFIX", "Put before", ""),
            ]
        );
        let text = render(&[("one", found.clone()), ("two", found[..1].to_vec())]);
        assert_eq!(text.matches("MT_NATS_URL").count(), 1);
        assert!(text.contains("# ---- of one\n\n# Put before\n#MT_PREFIX=\n"), "{text}");
    }
}
