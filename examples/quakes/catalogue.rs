//! A catalogue of earthquakes: from the bytes of a GeoJSON file to quakes in time order.

use std::ops::RangeInclusive;

use edri::Failure;
use serde::Deserialize;
use serde_json::Value;

use crate::events::QuakeRecorded;

/// What no quake of this planet is beyond.
const MAGNITUDES: RangeInclusive<f64> = -5.0..=11.0;
/// The years 1800 to 2200.
const TIMES_MS: RangeInclusive<i64> = -5_364_662_400_000..=7_289_654_399_999;
const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

#[derive(Deserialize)]
struct Collection {
    r#type: String,
    features: Vec<Value>,
}

#[derive(Deserialize)]
struct Feature {
    id: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    net: String,
    mag: Option<f64>,
    place: Option<String>,
    time: i64,
    r#type: String,
}

/// Reads a feature collection of the USGS, which has the newest quake first. The oldest comes first here.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<QuakeRecorded>, Failure> {
    let collection: Collection = serde_json::from_slice(bytes)
        .map_err(|error| Failure::new("not_geojson", format!("not a GeoJSON feature collection: {error}")))?;
    if collection.r#type != "FeatureCollection" {
        let message = format!("not a GeoJSON feature collection: its type is `{}`", collection.r#type);
        return Err(Failure::new("not_geojson", message));
    }
    let numbered = collection.features.into_iter().zip(1..);
    let mut quakes = numbered.map(|(value, number)| quake(number, value)).collect::<Result<Vec<_>, _>>()?;
    quakes.sort_by_key(|quake| quake.time_ms);
    Ok(quakes)
}

fn quake(number: usize, value: Value) -> Result<QuakeRecorded, Failure> {
    let id = value["id"].as_str().unwrap_or("without an id").to_owned();
    let broken = |what: String| Failure::new("broken_feature", format!("feature {number} ({id}): {what}"));
    let Feature { id, properties } = Feature::deserialize(value).map_err(|error| broken(error.to_string()))?;
    if let Some(magnitude) = properties.mag.filter(|magnitude| !MAGNITUDES.contains(magnitude)) {
        return Err(broken(format!("no quake has magnitude {magnitude}")));
    }
    if !TIMES_MS.contains(&properties.time) {
        return Err(broken(format!("{} ms since 1970 is not a time of our age", properties.time)));
    }
    Ok(QuakeRecorded {
        network: properties.net,
        id,
        magnitude: properties.mag,
        place: properties.place.unwrap_or_else(|| "unknown place".to_owned()),
        time_ms: properties.time,
        natural: properties.r#type == "earthquake",
    })
}

/// The catalogue `repeat` times, one after another: each time as many whole weeks later as it lasts, under ids of its own.
/// So all counts, of any network and magnitude, grow by the same factor, and the largest quakes stay what they are.
pub(crate) fn replay(quakes: &[QuakeRecorded], repeat: u32) -> impl Iterator<Item = QuakeRecorded> {
    let span_ms = match quakes {
        [first, .., last] => last.time_ms.saturating_sub(first.time_ms),
        _ => 0,
    };
    let period_ms = (span_ms / WEEK_MS + 1).saturating_mul(WEEK_MS);
    (0..repeat).flat_map(move |pass| {
        quakes.iter().cloned().map(move |mut quake| {
            if pass > 0 {
                quake.time_ms = quake.time_ms.saturating_add(period_ms.saturating_mul(pass.into()));
                quake.id = format!("{}#{}", quake.id, pass + 1);
            }
            quake
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUAKE: &str =
        r#"{"id": "ci1", "properties": {"net": "ci", "mag": -0.5, "place": null, "time": 7, "type": "x"}}"#;

    fn collection(features: &[&str]) -> String {
        format!(r#"{{"type": "FeatureCollection", "features": [{}]}}"#, features.join(","))
    }

    #[test]
    fn quakes_come_oldest_first() {
        let older = QUAKE.replace("7", "6").replace("ci1", "ci2");
        let quakes = parse(collection(&[QUAKE, &older]).as_bytes()).unwrap();
        assert_eq!(quakes.iter().map(|quake| &*quake.id).collect::<Vec<_>>(), ["ci2", "ci1"]);
    }

    #[test]
    fn what_may_be_missing_may_be_missing() {
        for text in [QUAKE.replace("-0.5", "null"), QUAKE.replace(r#""mag": -0.5, "#, "")] {
            let quakes = parse(collection(&[&text]).as_bytes()).unwrap();
            assert_eq!((quakes[0].magnitude, &*quakes[0].place), (None, "unknown place"));
        }
        assert_eq!(parse(collection(&[]).as_bytes()).unwrap(), []);
    }

    #[test]
    fn a_broken_feature_is_named() {
        let check = |feature: &str, expect: &str| {
            let failure = parse(collection(&[QUAKE, feature]).as_bytes()).unwrap_err();
            assert_eq!((failure.code(), failure.text()), ("broken_feature", expect));
        };
        check(&QUAKE.replace("time", "tim"), "feature 2 (ci1): missing field `time`");
        check(&QUAKE.replace("-0.5", "99"), "feature 2 (ci1): no quake has magnitude 99");
        check(&QUAKE.replace("-0.5", "\"5\""), "feature 2 (ci1): invalid type: string \"5\", expected f64");
        check(
            &QUAKE.replace("7", "7e15"),
            "feature 2 (ci1): invalid type: floating point `7000000000000000.0`, expected i64",
        );
        check("{}", "feature 2 (without an id): missing field `id`");
        check("7", "feature 2 (without an id): invalid type: integer `7`, expected struct Feature");
    }

    #[test]
    fn what_is_not_geojson_is_refused() {
        for text in ["", "7", "{", r#"{"type": "Feature"}"#, r#"{"type": "Feature", "features": []}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code(), "not_geojson", "{text}");
        }
    }

    #[test]
    fn a_repeated_catalogue_goes_on_a_week_later() {
        let quakes = parse(collection(&[QUAKE]).as_bytes()).unwrap();
        let replayed: Vec<_> = replay(&quakes, 3).map(|quake| (quake.id, quake.time_ms)).collect();
        let expect = [("ci1", 7), ("ci1#2", 7 + WEEK_MS), ("ci1#3", 7 + 2 * WEEK_MS)];
        assert_eq!(replayed, expect.map(|(id, time)| (id.to_owned(), time)));
    }
}
