//! `compare A.json B.json`: the figures of two results side by side, and their ratio.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    pub before: PathBuf,
    pub after: PathBuf,
}

/// Figures that every result has.
const COMMON: [&str; 16] = [
    "/sentPerS",
    "/deliveredPerS",
    "/delivery/p50Ms",
    "/delivery/p90Ms",
    "/delivery/p99Ms",
    "/delivery/p999Ms",
    "/delivery/maxMs",
    "/ack/p50Ms",
    "/ack/p99Ms",
    "/resume/p50Ms",
    "/resume/p99Ms",
    "/serverUsPerDelivery",
    "/serverUsPerMessage",
    "/projectorLagSMax",
    "/generator/cores",
    "/generator/late/p99Ms",
];

/// Prints the table.
///
/// # Errors
/// When a file is no result.
pub fn run(args: &CompareArgs) -> Result<()> {
    let read = |path: &PathBuf| -> Result<Value> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
    };
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    for (path, result) in [(&args.before, &before), (&args.after, &after)] {
        println!("{}: {} at {}", path.display(), result["scenario"], result["machine"]["commit"]);
    }
    for (name, before, after) in rows(&before, &after) {
        println!("{name:<52} {before:>12.2} {after:>12.2}  × {:.2}", after / before);
    }
    Ok(())
}

/// Name and both values of each figure that both results have, and that is something in the first.
fn rows(before: &Value, after: &Value) -> Vec<(String, f64, f64)> {
    let common = COMMON.iter().map(|pointer| {
        let value = |result: &Value| result.pointer(pointer).and_then(Value::as_f64);
        (pointer.trim_start_matches('/').replace('/', " "), value(before), value(after))
    });
    let listed = |list: &'static str, field: &'static str| {
        let named = move |result: &Value, name: &Value| {
            result[list].as_array()?.iter().find(|entry| entry["name"] == *name)?[field].as_f64()
        };
        let entries = before[list].as_array().cloned().unwrap_or_default();
        entries.into_iter().map(move |entry| {
            let name = format!("{} {field}", entry["name"].as_str().unwrap_or_default());
            (name, entry[field].as_f64(), named(after, &entry["name"]))
        })
    };
    common
        .chain(listed("processes", "usPerDelivery"))
        .chain(listed("processes", "pssEnd"))
        .chain(listed("figures", "value"))
        .filter_map(|(name, before, after)| Some((name, before.filter(|before| *before != 0.0)?, after?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_both_have_is_compared() {
        let before =
            json!({"sentPerS": 10.0, "delivery": {"p50Ms": 2.0}, "figures": [{"name": "PSS", "value": 4.0}]});
        let after =
            json!({"sentPerS": 20.0, "ack": {"p50Ms": 2.0}, "figures": [{"name": "PSS", "value": 3.0}]});
        let rows = rows(&before, &after);
        assert_eq!(rows, [("sentPerS".to_owned(), 10.0, 20.0), ("PSS value".to_owned(), 4.0, 3.0)]);
    }
}
