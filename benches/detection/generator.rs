//! Series of memory figures as a Node.js process makes them, leaking or not: the families that the detector is
//! measured on.
//!
//! The model keeps a live set, garbage that only a major collection frees (the collection comes when the heap reaches
//! a multiple of what the last one left), a young generation, a committed heap that shrinks slowly, native memory and
//! noise; the process is restarted when it meets its limit. Only live or native memory that grows without bound is a
//! leak. A *twin* is the same series without the leak.

use super::random::Random;

/// Samples an hour (one in 15 s).
pub const PER_HOUR: usize = 240;

/// Families without a leak.
pub const HEALTHY: [&str; 14] = [
    "steady",
    "sawtooth",
    "idle_slow_gc",
    "warmup",
    "cache_fill",
    "cache_linear_cap",
    "log_creep",
    "diurnal",
    "step",
    "batch",
    "queue",
    "ramp",
    "restarts",
    "frag",
];

/// Families with one.
pub const LEAKING: [&str; 16] = [
    "leak_0.1",
    "leak_0.5",
    "leak_1",
    "leak_2",
    "leak_5",
    "leak_10",
    "leak_25",
    "leak_100",
    "leak_load",
    "leak_step",
    "leak_restart",
    "leak_exp",
    "leak_diurnal",
    "leak_after_warm",
    "leak_onset",
    "leak_native",
];

/// Further families without a leak, made after real traces; only seeds below 100 were looked at while designing.
pub const OTHER_HEALTHY: [&str; 10] = [
    "neighbours",
    "compaction",
    "deploys",
    "weekly_ramp",
    "slow_cache",
    "unique_cache",
    "backlogs",
    "small_idle",
    "pool_native",
    "short_cache",
];

/// Further families with one.
pub const OTHER_LEAKING: [&str; 10] = [
    "leak_sawtooth",
    "leak_batch",
    "leak_deploys",
    "leak_jumpy_native",
    "leak_small",
    "leak_far",
    "leak_cache",
    "leak_backlog",
    "short_leak",
    "short_leak_small",
];

/// One series.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its family.
    pub family: String,
    /// Whether it leaks.
    pub leak: bool,
    /// Resident memory in MB, every 15 s; so are the others.
    pub resident: Vec<f64>,
    /// Used heap.
    pub heap_used: Vec<f64>,
    /// Committed heap.
    pub heap_total: Vec<f64>,
    /// Heap after a major collection that happened in this step, else `NaN`.
    pub after_gc: Vec<f64>,
    /// CPU in percent of a core.
    pub cpu: Vec<f64>,
    /// Whether a new life begins with this step.
    pub restart: Vec<bool>,
    /// The memory limit in MB.
    pub limit: f64,
    /// Hours until the leak begins.
    pub onset: f64,
    /// Hours until the limit was met for the first time.
    pub exhausted: Option<f64>,
}

/// What the model is fed with.
struct Plan {
    live: Vec<f64>,
    native: Vec<f64>,
    leak: Vec<f64>,
    exponential: Option<(f64, f64)>,
    leak_is_native: bool,
    warm_up: (f64, f64),
    promoted: Vec<f64>,
    young: f64,
    growth: (f64, f64),
    shrink: f64,
    restart: Vec<bool>,
    limit: f64,
}

/// Makes the series of a family and a seed. `harder` widens the parameters; `twin` leaves out the leak.
#[allow(clippy::too_many_lines, reason = "one table: what makes each family, in one place")]
pub fn generate(family: &str, seed: u64, harder: bool, twin: bool) -> Series {
    let random = &mut Random::new(family, seed.wrapping_mul(2).wrapping_add(u64::from(harder)));
    let k = if harder { 1.35 } else { 1.0 };
    let days = if family.starts_with("short_") { 0.5 } else { 3.0 };
    let hours = days * 24.0;
    let n = (hours * PER_HOUR as f64) as usize;
    let t: Vec<f64> = (0..n).map(|step| step as f64 / PER_HOUR as f64).collect();
    let other = OTHER_HEALTHY.contains(&family) || OTHER_LEAKING.contains(&family);
    let small = matches!(family, "leak_small" | "small_idle" | "short_leak_small");
    let base = match (small, other) {
        (true, _) => random.log_uniform(3.5, 9.0),
        (_, true) => random.log_uniform(8.0, 160.0),
        _ => random.log_uniform(25.0, 250.0),
    };
    let mut live = vec![base; n];
    let mut native = vec![random.uniform(if other { 28.0 } else { 40.0 }, if other { 60.0 } else { 90.0 }); n];
    let mut restart = vec![false; n];

    // Everyone has some noise of load, half of them a little of day and night, and a warm-up.
    let level = random.uniform(0.2, 0.8);
    let noise = random.wander(n, 0.98, 0.15 * k);
    let phase = random.uniform(0.0, 24.0);
    let mut swing = 0.0;
    if matches!(family, "diurnal" | "leak_diurnal" | "leak_load") {
        swing = random.uniform(0.3, 0.8);
    } else if random.unit() < 0.5 {
        swing = random.uniform(0.0, 0.3);
    }
    let day: Vec<f64> = t.iter().map(|t| 1.0 + swing * (std::f64::consts::TAU * (t - phase) / 24.0).sin()).collect();
    let mut load: Vec<f64> = day.iter().zip(&noise).map(|(day, noise)| level * noise.exp() * day).collect();
    let wobble = random.uniform(0.002, 0.012) * k;
    let sessions =
        base * random.uniform(0.02, 0.10) * if matches!(family, "diurnal" | "leak_diurnal") { 4.0 } else { 1.0 };
    for (i, wobble) in random.wander(n, 0.995, wobble).into_iter().enumerate() {
        live[i] = live[i] * (1.0 + wobble) + sessions * (day[i] - 1.0 + 0.3 * noise[i]);
    }
    let mut warm_tau = random.uniform(0.05, 0.4);
    let mut warm_share = random.uniform(0.05, 0.25);
    let headroom = if other { random.uniform(1.8, 6.0) } else { random.uniform(1.6, 4.0) };
    let mut gc_hours = random.log_uniform(0.05, 1.0);
    let add = |series: &mut Vec<f64>, size: f64, shape: &dyn Fn(f64) -> f64| {
        for (value, t) in series.iter_mut().zip(&t) {
            *value += size * shape(*t);
        }
    };
    match family {
        "sawtooth" | "leak_sawtooth" => gc_hours = random.log_uniform(0.5, 4.0),
        "idle_slow_gc" | "small_idle" => {
            gc_hours = random.log_uniform(4.0, 30.0);
            for load in &mut load {
                *load *= 0.3;
            }
        }
        "steady" => gc_hours = random.log_uniform(0.05, 0.25),
        "warmup" => {
            warm_tau = random.uniform(0.3, 2.0 * k);
            warm_share = random.uniform(0.3, 1.2);
        }
        "cache_fill" | "slow_cache" | "leak_cache" => {
            let size = base * random.uniform(0.3, 1.5);
            let slow = if family == "slow_cache" { 15.0 } else { 10.0 };
            let (tau, start) = (random.log_uniform(1.5, slow * k), random.uniform(0.0, 12.0));
            add(&mut live, size, &|t| 1.0 - (-(t - start).max(0.0) / tau).exp());
        }
        "cache_linear_cap" | "unique_cache" => {
            let size = base * if other { random.uniform(0.3, 2.0) } else { random.uniform(0.2, 1.0) };
            let last = random.log_uniform(1.0, 10.0 * k);
            let start = if other { 0.0 } else { random.uniform(0.0, 24.0) };
            add(&mut live, size, &|t| ((t - start) / last).clamp(0.0, 1.0));
        }
        "short_cache" => {
            let (size, last) = (base * random.uniform(0.3, 1.5), random.uniform(1.0, 6.0));
            let linear = random.unit() < 0.5;
            add(&mut live, size, &|t| if linear { (t / last).min(1.0) } else { 1.0 - (-t / last * 2.0).exp() });
        }
        "log_creep" => {
            let (size, unit) = (base * random.uniform(0.05, 0.2), random.uniform(0.05, 0.5));
            add(&mut live, size, &|t| (t / unit).ln_1p());
        }
        "step" => {
            for _ in 0..random.whole(1, 4) {
                let (size, at) = (base * random.uniform(0.08, 0.5), random.uniform(2.0, hours - 4.0));
                add(&mut live, size, &|t| f64::from(u8::from(t > at)));
            }
        }
        "batch" | "leak_batch" => {
            let period = random.log_uniform(0.5, 24.0);
            let busy = random.uniform(0.05, 0.4) * period.min(3.0);
            let (at, size) = (random.uniform(0.0, period), base * random.uniform(0.3, 1.5));
            add(&mut live, size, &|t| f64::from(u8::from((t - at).rem_euclid(period) < busy)));
        }
        "queue" | "backlogs" => {
            let same = base * random.uniform(0.3, 1.5);
            for _ in 0..random.whole(2, 5) {
                let start = random.uniform(1.0, hours - 12.0);
                let (up, down) = (random.uniform(0.5, 6.0 * k), random.uniform(0.3, 2.0));
                let size = if family == "queue" { base * random.uniform(0.3, 1.5) } else { same };
                let shape = move |t: f64| {
                    let x = t - start;
                    (x / up).clamp(0.0, 1.0) * (1.0 - ((x - up) / down).clamp(0.0, 1.0))
                };
                add(&mut live, size, &shape);
                for (load, t) in load.iter_mut().zip(&t) {
                    if shape(*t) > 0.0 {
                        *load = load.max(0.95);
                    }
                }
            }
        }
        "ramp" => {
            let (start, last) = (random.uniform(2.0, 30.0), random.uniform(2.0, 16.0));
            let more = random.uniform(0.3, 1.5);
            let size = base * random.uniform(0.1, 0.5) * more;
            for (load, t) in load.iter_mut().zip(&t) {
                *load *= 1.0 + more * ((t - start) / last).clamp(0.0, 1.0);
            }
            add(&mut live, size, &|t| ((t - start) / last).clamp(0.0, 1.0));
        }
        "weekly_ramp" => {
            // Load that comes back after a weekend: three days, each higher than the one before, memory with it.
            let (more, share) = (random.uniform(0.2, 0.6), random.uniform(0.1, 0.3));
            for i in 0..n {
                let rise = (t[i] / hours).powf(0.6) * more * (0.6 + 0.4 * (std::f64::consts::TAU * t[i] / 24.0).sin());
                load[i] *= 1.0 + rise;
                live[i] += base * share * rise;
            }
        }
        "frag" => {
            let (size, tau) = (base * random.uniform(0.1, 0.5), random.uniform(6.0, 24.0));
            add(&mut native, size, &|t| (t / tau).min(1.0).sqrt());
        }
        "pool_native" => {
            let (size, tau) = (base * random.uniform(0.2, 0.8), random.uniform(0.5, 6.0));
            add(&mut native, size, &|t| 1.0 - (-t / tau).exp());
        }
        "compaction" => {
            // A store that appends and compacts: a sawtooth of the live set itself.
            let (period, size) = (random.uniform(3.0, 20.0), base * random.uniform(0.2, 0.8));
            let at = random.uniform(0.0, period);
            add(&mut live, size, &|t| (t + at).rem_euclid(period) / period);
        }
        "restarts" | "leak_restart" => {
            for _ in 0..random.whole(3, 9) {
                restart[(random.uniform(2.0, hours - 2.0) * PER_HOUR as f64) as usize] = true;
            }
        }
        "deploys" | "leak_deploys" => {
            let every = random.uniform(4.0, 14.0);
            for deploy in 1..=((hours / every) as usize) {
                let at = (deploy as f64 * every * PER_HOUR as f64) as usize;
                if at < n {
                    restart[at] = true;
                }
            }
            warm_tau = random.uniform(0.2, 1.0);
            warm_share = random.uniform(0.2, 0.7);
        }
        _ => {}
    }
    if matches!(family, "neighbours" | "leak_jumpy_native" | "leak_small" | "small_idle" | "short_leak_small") {
        // Real traces show native memory that jumps between two or three levels: pooled pages, compiled code.
        let (jump, every) = (random.uniform(5.0, 18.0), random.log_uniform(0.3, 6.0));
        let mut next = random.exponential(every);
        let mut up = 0.0;
        for (native, t) in native.iter_mut().zip(&t) {
            if *t >= next {
                up = random.pick(&[0.0, 0.5, 1.0]);
                next = t + random.exponential(every);
            }
            *native += jump * up;
        }
    }

    // The leak: a share of the first footprint each hour.
    let footprint = base + native[0];
    let rate = match family {
        "leak_restart" | "leak_deploys" => random.log_uniform(4.0, 20.0),
        "leak_far" => random.log_uniform(3.0, 6.0),
        "short_leak" => random.log_uniform(4.0, 40.0),
        "leak_small" => random.log_uniform(0.4, 2.0),
        "short_leak_small" => random.log_uniform(2.0, 8.0),
        _ => family
            .strip_prefix("leak_")
            .and_then(|rate| rate.parse().ok())
            .unwrap_or_else(|| random.log_uniform(1.5, 10.0)),
    };
    let leaks = family.contains("leak");
    let mut onset = 0.0;
    let mut per_hour = vec![if leaks { rate / 100.0 * footprint } else { 0.0 }; n];
    match family {
        "leak_load" => {
            for (rate, day) in per_hour.iter_mut().zip(&day) {
                *rate *= ((day - 1.0 + swing * 0.3) / swing).max(0.0) / 0.65;
            }
        }
        "leak_onset" => {
            onset = random.uniform(6.0, 36.0);
            per_hour.iter_mut().zip(&t).for_each(|(rate, t)| *rate *= f64::from(u8::from(*t >= onset)));
        }
        "leak_backlog" => {
            onset = random.uniform(2.0, 24.0);
            per_hour.iter_mut().zip(&t).for_each(|(rate, t)| *rate *= f64::from(u8::from(*t >= onset)));
            load.iter_mut().zip(&t).for_each(|(load, t)| *load = if *t >= onset { load.max(0.95) } else { *load });
        }
        "leak_after_warm" => {
            warm_tau = random.uniform(0.3, 1.5);
            warm_share = random.uniform(0.3, 0.8);
        }
        _ => {}
    }
    let mut leak: Vec<f64> = per_hour.iter().map(|rate| rate / PER_HOUR as f64).collect();
    let mut exponential = None;
    if matches!(family, "leak_step" | "leak_batch") {
        let every = random.log_uniform(0.5, 4.0);
        let mut next = random.exponential(every);
        for (i, leak) in leak.iter_mut().enumerate() {
            *leak = 0.0;
            if t[i] >= next {
                *leak = per_hour[i] * every * random.uniform(0.6, 1.4);
                next += every * random.uniform(0.5, 1.5);
            }
        }
    }
    if family == "leak_exp" {
        exponential = Some((footprint * 0.02, random.uniform(4.0, 16.0)));
        leak.fill(0.0);
    }
    if twin {
        leak.fill(0.0);
        exponential = None;
    }
    let limit = footprint * if family == "leak_far" { random.uniform(4.0, 8.0) } else { headroom } + 32.0;
    let young = random.pick(&[2.0, 4.0, 8.0, 16.0]);
    let growth = (1.25, random.uniform(1.4, 2.2));
    let shrink = random.log_uniform(0.002, 0.2);
    let mean_load = load.iter().sum::<f64>() / n as f64;
    let promoted_per_step = (base * (f64::midpoint(growth.0, growth.1) - 1.0)).max(8.0) / (gc_hours * PER_HOUR as f64);
    let promoted = load.iter().map(|load| promoted_per_step * load / mean_load).collect();
    let plan = Plan {
        live,
        native,
        leak,
        exponential,
        leak_is_native: family == "leak_native",
        warm_up: (base * warm_share, warm_tau),
        promoted,
        young,
        growth,
        shrink,
        restart,
        limit: if leaks { limit } else { f64::INFINITY },
    };
    let mut series = run(plan, random);
    family.clone_into(&mut series.family);
    series.leak = leaks;
    series.onset = onset;
    let highest = series.resident.iter().copied().fold(0.0, f64::max);
    series.limit = if leaks { limit } else { limit.max(highest * random.uniform(1.1, 2.0)) };
    let jitter = random.uniform(0.1, 1.0);
    let jitter = random.wander(n, 0.9, jitter);
    let share = random.uniform(0.3, 1.0);
    for i in 0..n {
        series.resident[i] = series.resident[i] * (1.0 + random.normal(0.001 * k)) + jitter[i];
        series.heap_used[i] += random.normal(0.05);
        series.cpu.push((load[i] * 100.0 * share + random.normal(3.0)).clamp(0.0, 130.0));
    }
    series
}

/// Runs the model of V8's heap.
fn run(plan: Plan, random: &mut Random) -> Series {
    let n = plan.live.len();
    let least = 8.0;
    let mut series = Series {
        family: String::new(),
        leak: false,
        resident: Vec::with_capacity(n),
        heap_used: Vec::with_capacity(n),
        heap_total: Vec::with_capacity(n),
        after_gc: vec![f64::NAN; n],
        cpu: Vec::with_capacity(n),
        restart: plan.restart,
        limit: 0.0,
        onset: 0.0,
        exhausted: None,
    };
    let factor = random.uniform(plan.growth.0, plan.growth.1);
    let mut trigger = (plan.live[0] * factor).max(plan.live[0] + least);
    let mut committed = plan.live[0];
    let (mut garbage, mut age, mut leaked, mut dead) = (0.0, 0.0, 0.0, false);
    for i in 0..n {
        if series.restart[i] || dead {
            series.restart[i] = true;
            (garbage, age, leaked, dead) = (0.0, 0.0, 0.0, false);
            committed = plan.live[i];
            trigger = (plan.live[i] * 1.6).max(plan.live[i] + least);
        }
        leaked += plan.leak[i];
        if let Some((size, doubling)) = plan.exponential {
            leaked = size * ((age / doubling).exp2() - 1.0);
        }
        let mut live = plan.live[i].max(3.0) + plan.warm_up.0 * (1.0 - (-age / plan.warm_up.1).exp());
        let mut native = plan.native[i];
        if plan.leak_is_native {
            native += leaked;
        } else {
            live += leaked;
        }
        garbage += plan.promoted[i] * random.uniform(0.6, 1.4);
        let mut used = live + garbage;
        if used > trigger {
            garbage = live * 0.01 * random.unit();
            used = live + garbage;
            series.after_gc[i] = used;
            trigger = (used * random.uniform(plan.growth.0, plan.growth.1)).max(used + least);
        }
        series.heap_used.push(used + plan.young * random.unit());
        let needed = used + plan.young;
        committed =
            if needed > committed { needed } else { needed.max(committed - (committed - needed) * plan.shrink) };
        series.heap_total.push(committed);
        series.resident.push(native + committed);
        age += 1.0 / PER_HOUR as f64;
        if native + committed > plan.limit {
            dead = true;
            series.exhausted.get_or_insert(i as f64 / PER_HOUR as f64);
        }
    }
    series
}
