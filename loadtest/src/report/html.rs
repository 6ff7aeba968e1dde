//! One HTML file that needs nothing else: the figures as tables, the course of the run as charts.

use std::fmt::Write;

use anyhow::Result;

use super::{
    chart::{Chart, Line},
    outcome::{Distribution, Outcome},
};
use crate::latency::Summary;

const MIB: f64 = 1_048_576.0;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child{text-align:left}.good{color:#176a2b}.bad{color:#b00020;font-weight:bold}figure{margin:0 0 1.5rem}figcaption{text-align:center}pre{white-space:pre-wrap}";

/// The page.
///
/// # Errors
/// When a chart can't be drawn.
pub fn page(outcome: &Outcome) -> Result<String> {
    let mut page = String::new();
    head(&mut page, outcome)?;
    latencies(&mut page, outcome)?;
    processes(&mut page, outcome)?;
    charts(&mut page, outcome)?;
    writeln!(
        page,
        "<h2>Parameters</h2><pre>{}</pre></body></html>",
        escape(&serde_json::to_string_pretty(&outcome.params)?)
    )?;
    Ok(page)
}

fn head(page: &mut String, outcome: &Outcome) -> Result<()> {
    let Outcome { scenario, machine, params, judgement, .. } = outcome;
    let title = format!("{} at {}", escape(scenario), escape(&machine.commit));
    writeln!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head><body><h1>{title}</h1><p>{}</p><p>{} cores, {}, {:.0} GiB, Linux {}, load before {}</p>",
        escape(&params.about),
        machine.cores,
        escape(&machine.cpu),
        machine.memory_bytes as f64 / MIB / 1_024.0,
        escape(&machine.kernel),
        escape(&machine.load_average),
    )?;
    let (class, verdict) =
        if judgement.clean { ("good", "No promise broken") } else { ("bad", "Promises broken") };
    writeln!(
        page,
        "<p class=\"{class}\">{verdict}: {} commands acked, {} messages delivered to others, {} histories read.</p>",
        judgement.acked, outcome.counts.delivered, judgement.histories
    )?;
    if !judgement.examples.is_empty() {
        writeln!(page, "<pre>{}</pre>", escape(&judgement.examples.join("\n")))?;
    }
    writeln!(
        page,
        "<p>Sent {:.0}/s, delivered {:.0}/s for {:.0} s. Servers {:.1} µs of CPU per delivery, {:.1} µs per message.</p>",
        outcome.sent_per_s,
        outcome.delivered_per_s,
        outcome.window_s,
        outcome.server_us_per_delivery,
        outcome.server_us_per_message
    )?;
    Ok(())
}

fn latencies(page: &mut String, outcome: &Outcome) -> Result<()> {
    let rows: [(&str, &Distribution); 4] = [
        ("delivery", &outcome.delivery),
        ("ack", &outcome.ack),
        ("delivery after a resume", &outcome.replayed),
        ("resume", &outcome.resume),
    ];
    writeln!(
        page,
        "<h2>Latency from the intended time, ms</h2><table><tr><th></th><th>p50</th><th>p90</th><th>p99</th>\
         <th>p99.9</th><th>max</th><th>count</th></tr>"
    )?;
    for (name, distribution) in rows.into_iter().filter(|(_, distribution)| distribution.summary.count > 0) {
        let Summary { count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = distribution.summary;
        writeln!(
            page,
            "<tr><td>{name}</td><td>{p50_ms:.2}</td><td>{p90_ms:.2}</td><td>{p99_ms:.2}</td><td>{p999_ms:.2}</td>\
             <td>{max_ms:.2}</td><td>{count}</td></tr>"
        )?;
    }
    writeln!(page, "</table>")?;
    Ok(())
}

fn processes(page: &mut String, outcome: &Outcome) -> Result<()> {
    writeln!(
        page,
        "<h2>Processes</h2><table><tr><th></th><th>cores</th><th>µs/delivery</th><th>PSS before, MiB</th><th>after</th></tr>"
    )?;
    for process in &outcome.processes {
        writeln!(
            page,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td></tr>",
            escape(&process.name),
            process.cores,
            process.us_per_delivery,
            process.pss_begin as f64 / MIB,
            process.pss_end as f64 / MIB
        )?;
    }
    writeln!(
        page,
        "<tr><td>load generator</td><td>{:.2}</td><td>{:.1}</td><td></td><td></td></tr></table>",
        outcome.generator.cores, outcome.generator.us_per_delivery
    )?;
    if !outcome.figures.is_empty() {
        writeln!(page, "<h2>Figures</h2><table>")?;
        for figure in &outcome.figures {
            writeln!(
                page,
                "<tr><td>{}</td><td>{:.2} {}</td></tr>",
                escape(&figure.name),
                figure.value,
                figure.unit
            )?;
        }
        writeln!(page, "</table>")?;
    }
    Ok(())
}

fn charts(page: &mut String, outcome: &Outcome) -> Result<()> {
    writeln!(page, "<h2>Charts</h2>")?;
    let steps: Vec<String> =
        outcome.steps.iter().map(|(at, name)| format!("{name} from {at:.0} s")).collect();
    writeln!(page, "<p>{}</p>", escape(&steps.join(", ")))?;
    for svg in [
        curve(outcome)?,
        over_time(outcome)?,
        throughput(outcome)?,
        cpu(outcome)?,
        memory(outcome)?,
        lag(outcome)?,
    ] {
        writeln!(page, "{svg}")?;
    }
    Ok(())
}

/// Percentiles over the number of nines, so that the tail is as wide as the rest.
fn curve(outcome: &Outcome) -> Result<String> {
    let nines = |percentile: f64| -(1.0 - percentile.min(99.999) / 100.0).log10();
    let line = |name: &str, distribution: &Distribution| {
        Line::new(name, distribution.curve.iter().map(|(percentile, ms)| (nines(*percentile), *ms)))
    };
    let chart = Chart {
        title: "Latency by percentile",
        x: "nines: 1 is p90, 2 is p99, 3 is p99.9",
        y: "ms",
        log: true,
    };
    chart.figure(&[
        line("delivery", &outcome.delivery),
        line("ack", &outcome.ack),
        line("resume", &outcome.resume),
    ])
}

fn over_time(outcome: &Outcome) -> Result<String> {
    let line = |name: &str, pick: fn(&crate::swarm::Row) -> f64| {
        Line::new(name, outcome.rows.iter().filter(|row| row.delivered > 0).map(|row| (row.at_s, pick(row))))
    };
    let chart = Chart { title: "Delivery latency over time", x: "s", y: "ms", log: true };
    chart.figure(&[
        line("p50", |row| row.p50_ms),
        line("p99", |row| row.p99_ms),
        line("max", |row| row.max_ms),
    ])
}

fn throughput(outcome: &Outcome) -> Result<String> {
    let line = |name: &str, pick: fn(&crate::swarm::Row) -> f64| {
        Line::new(name, outcome.rows.iter().map(|row| (row.at_s, pick(row))))
    };
    let chart = Chart {
        title: "Throughput and live devices over time",
        x: "s",
        y: "per second; devices",
        log: false,
    };
    chart.figure(&[
        line("sent", |row| row.sent as f64),
        line("delivered", |row| row.delivered as f64),
        line("live devices", |row| f64::from(row.live)),
    ])
}

fn cpu(outcome: &Outcome) -> Result<String> {
    let own =
        Line::new("load generator", outcome.samples.iter().map(|sample| (sample.at_s, sample.own_cores)));
    let lines = by_process(outcome, |sample, n| sample.cores.get(n).copied());
    let chart = Chart { title: "CPU by process", x: "s", y: "cores", log: false };
    chart.figure(&lines.into_iter().chain([own]).collect::<Vec<_>>())
}

fn memory(outcome: &Outcome) -> Result<String> {
    let lines = by_process(outcome, |sample, n| sample.pss.get(n).map(|pss| *pss as f64 / MIB));
    Chart { title: "Memory by process", x: "s", y: "PSS, MiB", log: false }.figure(&lines)
}

fn by_process(
    outcome: &Outcome,
    pick: fn(&crate::measure::watch::Sample, usize) -> Option<f64>,
) -> Vec<Line> {
    let names = outcome.watched.iter().enumerate();
    names
        .map(|(n, name)| {
            let points = outcome.samples.iter().filter_map(|sample| Some((sample.at_s, pick(sample, n)?)));
            Line::new(name.as_str(), points)
        })
        .collect()
}

fn lag(outcome: &Outcome) -> Result<String> {
    let projector =
        outcome.samples.iter().filter_map(|sample| Some((sample.at_s, sample.projector_lag_events?)));
    let nats = outcome.samples.iter().filter_map(|sample| Some((sample.at_s, sample.nats_pending? as f64)));
    let chart = Chart { title: "Events behind", x: "s", y: "events", log: false };
    chart.figure(&[Line::new("projector", projector), Line::new("pending in NATS", nats)])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_shows_what_was_broken() {
        let mut outcome = Outcome { scenario: "a<b".to_owned(), ..Outcome::default() };
        outcome.judgement.examples.push("Lost: <message>".to_owned());
        let page = page(&outcome).unwrap();
        assert!(page.contains("a&lt;b") && page.contains("Lost: &lt;message&gt;"));
        assert!(page.contains("Promises broken"));
        assert!(!page.contains("http://") || page.contains("www.w3.org"));
        assert!(!page.contains("<script") && !page.contains("<link"));
    }
}
