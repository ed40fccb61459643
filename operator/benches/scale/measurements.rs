//! The measurements. Each has a cluster and an AWS account of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws_sim::CallRate;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;

use crate::common::writes;
use crate::operator_process::{RunningOperator, compressed, no_limit, rate_flags};
use crate::setup::{Setup, name};
use crate::table::{Limit, Row, number};
use crate::watched::State;
use crate::{Arguments, Measurement, pods};

/// The time over the least possible under a limit of calls.
const THROTTLED: f64 = 1.15;
/// Calls for a new binding, and for each of its policies one more.
const CALLS: f64 = 3.0;
/// Reads of 1,000 bindings in an hour are 520, and 167 for each inline policy that they have on average: a part that does not
/// depend on their number (the provider, the list of roles), and what a binding and an inline policy cost.
const READS: (f64, f64, f64) = (20.0, 0.5, 0.167);
/// Median and 99th percentile from apply to Ready, in milliseconds.
const LATENCY: (f64, f64) = (150.0, 500.0);
/// Memory with 10,000 bindings.
const MEGABYTES: f64 = 64.0;
/// The default rate of the operator's own limit.
const OWN_RATE: u32 = 5;
/// The default burst of the operator's own limit.
const OWN_BURST: u32 = 20;

pub async fn measure(measurement: Measurement, arguments: &Arguments) -> Result<Vec<Row>> {
    let bindings = arguments.bindings;
    let mut rows = Vec::new();
    match measurement {
        Measurement::Throttled => throttled(arguments, &mut rows).await?,
        Measurement::Burst => {
            for bindings in [bindings, 5 * bindings] {
                burst(arguments, bindings, &mut rows).await?;
            }
        }
        Measurement::Steady => steady(arguments, &mut rows).await?,
        Measurement::Restart => restart(arguments, &mut rows).await?,
        Measurement::Latency => latency(arguments, &mut rows).await?,
        Measurement::Memory => memory(arguments, &mut rows).await?,
        Measurement::Pods => {
            let setup = Setup::new(arguments).await?;
            pods::measure(bindings, arguments.pods, &setup, &mut rows).await?;
        }
        Measurement::Deletion => deletion(arguments, &mut rows).await?,
    }
    Ok(rows)
}

async fn throttled(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let Arguments { bindings, rate, burst, .. } = *arguments;
    let setup = Setup::new(arguments).await?;
    let mut operator = setup.operator(&rate_flags(rate, burst)).await?;
    setup.service_accounts(0, bindings).await?;
    setup.aws.sim.behave(|behaviour| behaviour.iam_rate = Some(CallRate { per_second: rate, burst }));
    let (begun, since) = (Instant::now(), setup.aws.sim.elapsed());
    setup.create(0, bindings).await?;
    let last = setup.until_ready(&mut operator, bindings).await?;
    let calls = setup.aws.since(since);
    let seconds = last.duration_since(begun).as_secs_f64();
    // What the bucket holds at first costs no time.
    let possible = number(calls.iam().saturating_sub(burst as usize)) / f64::from(rate);
    let what = format!("{bindings} at once, IAM answers {rate} calls/s");
    rows.extend([
        Row::new(
            format!("{what}: s until the last is Ready"),
            seconds,
            1,
            Limit::Best(possible, Some(THROTTLED)),
        ),
        calls_per_binding(arguments, &what, calls.of_bindings(), bindings),
        Row::new(format!("{what}: calls that IAM throttled"), number(calls.throttled()), 0, Limit::None),
        Row::none(format!("{what}: bindings that were Stalled"), setup.watched.state().stalled.len()),
    ]);
    Ok(())
}

async fn burst(arguments: &Arguments, bindings: usize, rows: &mut Vec<Row>) -> Result<()> {
    let setup = Setup::new(arguments).await?;
    // Makes the issuer Ready, so that the second start has nothing else to do.
    setup.operator(&no_limit()).await?.stop().await?;
    setup.service_accounts(0, bindings).await?;
    let alone = setup.create(0, bindings).await?.as_secs_f64();
    setup.delete(bindings).await?;
    let mut operator = setup.operator(&no_limit()).await?;
    operator.until_quiet(0).await?;
    let before = writes(&setup.client).await?;
    let (begun, since, cpu) = (Instant::now(), setup.aws.sim.elapsed(), operator.cpu_seconds()?);
    setup.create(0, bindings).await?;
    let created = Instant::now();
    let last = setup.until_ready(&mut operator, bindings).await?;
    let cpu = operator.cpu_seconds()? - cpu;
    let calls = setup.aws.since(since).of_bindings();
    operator.until_quiet(1).await?;
    let written = writes(&setup.client).await? - before;
    let seconds = last.duration_since(begun).as_secs_f64();
    let what = format!("{bindings} at once");
    rows.extend([
        Row::new(
            format!("{what}: s until the last is Ready, beside creation alone"),
            seconds,
            1,
            Limit::Best(alone, None),
        ),
        Row::new(
            format!("{what}: s from the last creation to the last Ready"),
            last.saturating_duration_since(created).as_secs_f64(),
            1,
            Limit::None,
        ),
        calls_per_binding(arguments, &what, calls, bindings),
        Row::new(
            format!("{what}: writes to binding and ServiceAccount for each, creation included"),
            f64::from(u32::try_from(written)?) / number(bindings),
            2,
            Limit::None,
        ),
        Row::new(
            format!("{what}: CPU ms of the operator for each"),
            cpu * 1e3 / number(bindings),
            2,
            Limit::None,
        ),
    ]);
    Ok(())
}

async fn steady(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let Arguments { bindings, factor, hours, .. } = *arguments;
    let setup = Setup::new(arguments).await?;
    setup.with_ready(bindings).await?.stop().await?;
    let mut flags = compressed(factor);
    flags.extend(rate_flags(OWN_RATE * factor, OWN_BURST * factor));
    let mut operator = setup.operator(&flags).await?;
    let hour = Duration::from_hours(1) / factor;
    eprintln!(
        "  every period divided by {factor}: {hours} hours take {:.0?}, after one that is not counted",
        hour * hours
    );
    // What a start reads is not steady state.
    sleep(hour, &mut operator).await?;
    let before = writes(&setup.client).await?;
    let (since, cpu, begun) = (setup.aws.sim.elapsed(), operator.cpu_seconds()?, Instant::now());
    sleep(hour * hours, &mut operator).await?;
    let passed = begun.elapsed().as_secs_f64();
    let (calls, cpu) = (setup.aws.since(since), operator.cpu_seconds()? - cpu);
    let written = writes(&setup.client).await? - before;
    let passed_hours = passed / hour.as_secs_f64();
    let an_hour = |count: usize| number(count) / passed_hours;
    let most = READS.0 + (READS.1 + READS.2 * number(arguments.inline)) * number(bindings);
    let what = format!("{bindings} in steady state, time x {factor}");
    rows.extend([
        Row::new(format!("{what}: IAM reads an hour"), an_hour(calls.reads().len()), 0, Limit::AtMost(most)),
        Row::none(format!("{what}: writes to AWS in {hours} h"), calls.writes()),
        Row::none(
            format!("{what}: writes to bindings and ServiceAccounts in {hours} h"),
            usize::try_from(written)?,
        ),
        Row::new(format!("{what}: S3 and STS calls an hour"), an_hour(calls.others()), 0, Limit::None),
        // Near 1, the operator may not have kept up with the compressed time.
        Row::new(format!("{what}: CPU cores of the operator meanwhile"), cpu / passed, 2, Limit::None),
    ]);
    Ok(())
}

async fn restart(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let Arguments { bindings, seconds, .. } = *arguments;
    let setup = Setup::new(arguments).await?;
    setup.with_ready(bindings).await?.stop().await?;
    let before = writes(&setup.client).await?;
    let since = setup.aws.sim.elapsed();
    // With every default.
    let mut operator = setup.operator(&[]).await?;
    let left = Duration::from_secs(seconds).saturating_sub(setup.aws.sim.elapsed().saturating_sub(since));
    sleep(left, &mut operator).await?;
    let calls = setup.aws.since(since);
    let written = writes(&setup.client).await? - before;
    let reads = calls.reads();
    let mut by_second = vec![0_usize; usize::try_from(seconds)? + 1];
    for read in &reads {
        let second = usize::try_from(read.saturating_sub(since).as_secs())?;
        if let Some(count) = by_second.get_mut(second) {
            *count += 1;
        }
    }
    eprintln!("  IAM reads in each second after the start: {by_second:?}");
    let most = by_second.iter().max().copied().unwrap_or_default();
    let what = format!("restart with {bindings} Ready, {seconds} s");
    rows.extend([
        Row::none(format!("{what}: writes to AWS"), calls.writes()),
        Row::none(format!("{what}: writes to bindings and ServiceAccounts"), usize::try_from(written)?),
        Row::new(format!("{what}: IAM reads"), number(reads.len()), 0, Limit::None),
        Row::new(format!("{what}: most IAM reads in one second"), number(most), 0, Limit::None),
    ]);
    Ok(())
}

async fn latency(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let samples = arguments.samples;
    let setup = Setup::new(arguments).await?;
    let mut operator = setup.operator(&no_limit()).await?;
    setup.service_accounts(0, samples).await?;
    operator.until_quiet(0).await?;
    let mut milliseconds = Vec::new();
    for sample in 0..samples {
        let name = name(sample);
        let applied = Instant::now();
        setup.create_one(sample).await?;
        let ready = setup.until_ready(&mut operator, sample + 1).await?;
        ensure!(setup.watched.state().ready.contains_key(&name), "another binding than {name} became Ready");
        milliseconds.push(ready.duration_since(applied).as_secs_f64() * 1e3);
    }
    milliseconds.sort_by(f64::total_cmp);
    let percentile = |of: usize| milliseconds[(samples * of).div_ceil(100) - 1];
    let what = format!("apply to Ready, one at a time, {samples} samples");
    rows.extend([
        Row::new(format!("{what}: p50 ms"), percentile(50), 1, Limit::AtMost(LATENCY.0)),
        Row::new(format!("{what}: p99 ms"), percentile(99), 1, Limit::AtMost(LATENCY.1)),
    ]);
    Ok(())
}

async fn memory(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let setup = Setup::new(arguments).await?;
    let mut operator = setup.operator(&no_limit()).await?;
    let mut exist = 0;
    for times in [0, 1, 5, 10] {
        let wanted = times * arguments.bindings;
        setup.service_accounts(exist, wanted - exist).await?;
        setup.create(exist, wanted - exist).await?;
        if wanted > 0 {
            setup.until_ready(&mut operator, wanted).await?;
        }
        exist = wanted;
        operator.until_quiet(0).await?;
        // The targets are about 10,000.
        let limit = if wanted == 10_000 { Limit::AtMost(MEGABYTES) } else { Limit::Best(MEGABYTES, None) };
        report_memory(&operator, &format!("{wanted} bindings made"), limit, rows)?;
        operator.stop().await?;
        operator = setup.operator(&no_limit()).await?;
        operator.until_quiet(u64::try_from(wanted)?).await?;
        report_memory(&operator, &format!("{wanted} bindings after a restart"), limit, rows)?;
    }
    Ok(())
}

fn report_memory(operator: &RunningOperator, what: &str, limit: Limit, rows: &mut Vec<Row>) -> Result<()> {
    let memory = operator.memory()?;
    rows.push(Row::new(format!("memory, {what}: MB when settled"), memory.settled_mb, 1, limit));
    rows.push(Row::new(format!("memory, {what}: MB at the peak"), memory.peak_mb, 1, limit));
    Ok(())
}

async fn deletion(arguments: &Arguments, rows: &mut Vec<Row>) -> Result<()> {
    let bindings = arguments.bindings;
    let setup = Setup::new(arguments).await?;
    let mut operator = setup.with_ready(bindings).await?;
    ensure!(setup.aws.roles() == bindings, "every binding has a role");
    let (begun, since) = (Instant::now(), setup.aws.sim.elapsed());
    let asked = setup.delete(bindings).await?;
    let gone = |state: &State| state.existing.is_empty();
    setup.watched.until("bindings are left", &mut operator, gone, |state| state.existing.len()).await?;
    let calls = setup.aws.since(since);
    let last = setup.watched.state().last_gone.unwrap_or(begun);
    let accounts: Api<PartialObjectMeta<ServiceAccount>> = Api::all(setup.client.clone());
    let annotated = accounts.list_metadata(&ListParams::default()).await?;
    let annotated = annotated.iter().filter(|account| {
        let annotations = account.metadata.annotations.iter().flatten();
        annotations.into_iter().any(|(key, _)| key.starts_with("eks.amazonaws.com/"))
    });
    let what = format!("{bindings} deleted at once");
    rows.extend([
        Row::new(
            format!("{what}: s until the last is gone, beside the requests"),
            last.duration_since(begun).as_secs_f64(),
            1,
            Limit::Best(asked.as_secs_f64(), None),
        ),
        Row::new(
            format!("{what}: IAM calls for each"),
            number(calls.iam()) / number(bindings),
            2,
            Limit::None,
        ),
        Row::none(format!("{what}: roles left behind"), setup.aws.roles()),
        Row::none(format!("{what}: annotated ServiceAccounts left behind"), annotated.count()),
    ]);
    Ok(())
}

fn calls_per_binding(arguments: &Arguments, what: &str, calls: usize, bindings: usize) -> Row {
    let most = CALLS + number(arguments.managed + arguments.inline);
    let each = number(calls) / number(bindings);
    Row::new(format!("{what}: IAM calls for each binding"), each, 2, Limit::AtMost(most))
}

/// Waits while the operator runs.
async fn sleep(time: Duration, operator: &mut RunningOperator) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
        operator.check()?;
    }
    Ok(())
}
