//! Bytes of the store's values: packed minutes and summaries of lives. Pure; refuses nothing but damaged input.
//!
//! A packed minute is its figures only: one byte tells which of the five were measured, then four bytes
//! (little-endian `f32`) for each of those. An hour is a list of `minute of the hour, packed minute`; a batch is a list
//! of `series, minute, packed minute`.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use model::{AppName, DaemonName, Life, LifeEnd, LifeSummary, Minute, ProcessKey, Slope, Steady};

/// Minutes of one hour of one life, by minute of the hour.
pub(crate) type Hour = std::collections::BTreeMap<u8, Minute>;

/// The input is not what this codec writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored value does not decode")]
pub(crate) struct Malformed;

/// The hour on the steady line that holds a minute, and the minute's place in it.
pub(crate) fn hour_of(minute: i64) -> (i64, u8) {
    (minute.div_euclid(60), u8::try_from(minute.rem_euclid(60)).expect("invariant: a remainder of 60 fits a byte"))
}

/// The minute at a place in an hour: the inverse of [`hour_of`] over the whole range.
pub(crate) fn minute_in(hour: i64, place: u8) -> i64 {
    hour.wrapping_mul(60).wrapping_add(i64::from(place))
}

fn push_figures(into: &mut Vec<u8>, minute: &Minute) {
    let figures = [minute.resident, minute.native, minute.heap_floor, minute.heap_used, minute.load];
    let mut present = 0_u8;
    for (bit, figure) in figures.iter().enumerate() {
        if !figure.is_nan() {
            present |= 1 << bit;
        }
    }
    into.push(present);
    for figure in figures.iter().filter(|figure| !figure.is_nan()) {
        into.extend_from_slice(&figure.to_le_bytes());
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = from.split_first_chunk::<N>().ok_or(Malformed)?;
    *from = rest;
    Ok(*head)
}

fn take_figures(from: &mut &[u8], minute: i64) -> Result<Minute, Malformed> {
    let [present] = take(from)?;
    if present >= 1 << 5 {
        return Err(Malformed);
    }
    let mut figures = [f32::NAN; 5];
    for (bit, figure) in figures.iter_mut().enumerate() {
        if present & (1 << bit) != 0 {
            *figure = f32::from_le_bytes(take(from)?);
        }
    }
    let [resident, native, heap_floor, heap_used, load] = figures;
    Ok(Minute { minute, resident, native, heap_floor, heap_used, load })
}

/// Packs the minutes of one hour.
pub(crate) fn pack_hour(minutes: &Hour) -> Vec<u8> {
    let mut packed = Vec::with_capacity(minutes.len() * 22);
    for (place, minute) in minutes {
        packed.push(*place);
        push_figures(&mut packed, minute);
    }
    packed
}

/// Unpacks what [`pack_hour`] wrote, as an iterator in time order.
pub(crate) fn unpack_hour(hour: i64, mut packed: &[u8]) -> impl Iterator<Item = Result<(u8, Minute), Malformed>> {
    std::iter::from_fn(move || {
        if packed.is_empty() {
            return None;
        }
        let row = take::<1>(&mut packed).and_then(|[place]| {
            if place >= 60 {
                return Err(Malformed);
            }
            Ok((place, take_figures(&mut packed, minute_in(hour, place))?))
        });
        if row.is_err() {
            packed = &[];
        }
        Some(row)
    })
}

/// Adds one minute of one series to a batch.
pub(crate) fn push_batch(into: &mut Vec<u8>, series: u32, minute: &Minute) {
    into.extend_from_slice(&series.to_le_bytes());
    into.extend_from_slice(&minute.minute.to_le_bytes());
    push_figures(into, minute);
}

/// Unpacks a batch, in the order it was written.
pub(crate) fn unpack_batch(mut packed: &[u8]) -> impl Iterator<Item = Result<(u32, Minute), Malformed>> {
    std::iter::from_fn(move || {
        if packed.is_empty() {
            return None;
        }
        let row = take_row(&mut packed);
        if row.is_err() {
            packed = &[];
        }
        Some(row)
    })
}

fn take_row(packed: &mut &[u8]) -> Result<(u32, Minute), Malformed> {
    let series = u32::from_le_bytes(take(packed)?);
    let minute = i64::from_le_bytes(take(packed)?);
    Ok((series, take_figures(packed, minute)?))
}

/// A summary as JSON that later versions can add to. Figures are the hexadecimal of their bits, because JSON knows no
/// `NaN`.
#[derive(Serialize, Deserialize)]
struct LifeRow {
    daemon: DaemonName,
    pm_id: u32,
    #[serde(flatten)]
    app: AppName,
    life: Life,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    first: Steady,
    last: Steady,
    end: LifeEnd,
    floors: String,
    resident_floors: String,
    resident_max: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slope: Option<[String; 3]>,
}

/// Encodes a summary.
pub(crate) fn encode_life(summary: &LifeSummary) -> Vec<u8> {
    let row = LifeRow {
        daemon: summary.key.daemon.clone(),
        pm_id: summary.key.pm_id,
        app: summary.app.clone(),
        life: summary.life,
        version: summary.version.clone(),
        revision: summary.revision.clone(),
        first: summary.first,
        last: summary.last,
        end: summary.end,
        floors: hex(&summary.floors),
        resident_floors: hex(&summary.resident_floors),
        resident_max: hex(&[summary.resident_max]),
        slope: summary.slope.map(|slope| [slope.bytes_per_second, slope.low, slope.high].map(hex_wide)),
    };
    serde_json::to_vec(&row).expect("invariant: text and numbers always encode as JSON")
}

/// Decodes a summary.
pub(crate) fn decode_life(bytes: &[u8]) -> Result<LifeSummary, Malformed> {
    let row: LifeRow = serde_json::from_slice(bytes).map_err(|_not_json| Malformed)?;
    let slope = match row.slope {
        None => None,
        Some([slope, low, high]) => {
            Some(Slope { bytes_per_second: unhex_wide(&slope)?, low: unhex_wide(&low)?, high: unhex_wide(&high)? })
        }
    };
    Ok(LifeSummary {
        key: ProcessKey { daemon: row.daemon, pm_id: row.pm_id },
        app: row.app,
        life: row.life,
        version: row.version,
        revision: row.revision,
        first: row.first,
        last: row.last,
        end: row.end,
        floors: unhex(&row.floors)?,
        resident_floors: unhex(&row.resident_floors)?,
        resident_max: unhex(&row.resident_max)?.first().copied().ok_or(Malformed)?,
        slope,
    })
}

fn hex(figures: &[f32]) -> String {
    figures.iter().fold(String::with_capacity(8 * figures.len()), |mut text, figure| {
        write!(text, "{:08x}", figure.to_bits()).expect("invariant: a string takes any text");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<f32>, Malformed> {
    let (groups, rest) = text.as_bytes().as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    groups.iter().map(|group| from_hex(group, u32::from_str_radix).map(f32::from_bits)).collect()
}

fn hex_wide(figure: f64) -> String {
    format!("{:016x}", figure.to_bits())
}

fn unhex_wide(text: &str) -> Result<f64, Malformed> {
    from_hex(text.as_bytes(), u64::from_str_radix).map(f64::from_bits)
}

fn from_hex<T>(digits: &[u8], parse: impl Fn(&str, u32) -> Result<T, std::num::ParseIntError>) -> Result<T, Malformed> {
    let digits = std::str::from_utf8(digits).map_err(|_not_text| Malformed)?;
    parse(digits, 16).map_err(|_not_digits| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(left: &Minute, right: &Minute) -> bool {
        let figures = |minute: &Minute| {
            [minute.resident, minute.native, minute.heap_floor, minute.heap_used, minute.load]
                .map(|figure| if figure.is_nan() { u32::MAX } else { figure.to_bits() })
        };
        left.minute == right.minute && figures(left) == figures(right)
    }

    prop_compose! {
        fn any_minute()(minute in any::<i64>(), figures in any::<[f32; 5]>()) -> Minute {
            let [resident, native, heap_floor, heap_used, load] = figures;
            Minute { minute, resident, native, heap_floor, heap_used, load }
        }
    }

    proptest! {
        #[test]
        fn a_minute_survives_its_hour(minute in any_minute()) {
            let (hour, place) = hour_of(minute.minute);
            let packed = pack_hour(&Hour::from([(place, minute)]));
            prop_assert!(packed.len() <= 22);
            let back: Vec<_> = unpack_hour(hour, &packed).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(back.len(), 1);
            prop_assert!(same(&back[0].1, &minute), "{:?} became {:?}", minute, back[0].1);
        }

        #[test]
        fn a_batch_keeps_order_and_series(rows in prop::collection::vec((any::<u32>(), any_minute()), 0..50)) {
            let mut packed = Vec::new();
            for (series, minute) in &rows {
                push_batch(&mut packed, *series, minute);
            }
            let back: Vec<_> = unpack_batch(&packed).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(back.len(), rows.len());
            for (left, right) in back.iter().zip(&rows) {
                prop_assert!(left.0 == right.0 && same(&left.1, &right.1));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let rows = unpack_hour(7, &bytes).count() + unpack_batch(&bytes).count();
            prop_assert!(rows <= 2 * bytes.len());
            let _ = decode_life(&bytes);
        }
    }

    #[test]
    fn a_summary_survives_with_its_gaps_and_infinities() {
        let summary = LifeSummary {
            key: ProcessKey { daemon: "default".into(), pm_id: 0 },
            app: "api \"quoted\" \u{1f600}".into(),
            life: Life { pid: 4711, started: 1_700_000_000_123 },
            version: Some("1.2.3".to_owned()),
            revision: None,
            first: Steady(1),
            last: Steady(2),
            end: LifeEnd::RestartedByUs,
            floors: vec![1.5, f32::NAN, 3.0e9],
            resident_floors: vec![],
            resident_max: f32::INFINITY,
            slope: Some(Slope { bytes_per_second: 0.1, low: f64::NEG_INFINITY, high: f64::NAN }),
        };
        let back = decode_life(&encode_life(&summary)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{summary:?}"));
    }

    #[test]
    fn a_summary_with_fields_of_a_later_version_is_read() {
        let mut json: serde_json::Value = serde_json::json!({
            "daemon": "default", "pm_id": 3, "app": "api", "life": {"pid": 1, "started": 2},
            "first": 5, "last": 6, "end": "running", "floors": "", "resident_floors": "3f800000",
            "resident_max": "7fc00000",
        });
        json["from_the_future"] = serde_json::json!({"x": 1});
        let back = decode_life(json.to_string().as_bytes()).unwrap();
        assert_eq!(back.resident_floors, [1.0]);
        assert!(back.resident_max.is_nan() && back.version.is_none());
        for damaged in ["floors", "resident_max"] {
            let mut json = json.clone();
            json[damaged] = serde_json::json!("3f80000");
            assert_eq!(decode_life(json.to_string().as_bytes()), Err(Malformed), "{damaged}");
        }
    }
}
