//! A catalogue of earthquakes: from the bytes of a GeoJSON file to quakes in time order.

use std::ops::RangeInclusive;

use edri::Failure;
use serde_json::Value;

use crate::events::QuakeRecorded;

/// What no quake of this planet is beyond.
const MAGNITUDES: RangeInclusive<f64> = -5.0..=11.0;
/// The years 1800 to 2200.
const TIMES_MS: RangeInclusive<i64> = -5_364_662_400_000..=7_289_654_399_999;
const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

/// Reads a feature collection of the USGS, which has the newest quake first. Here the oldest comes first.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<QuakeRecorded>, Failure> {
    let refused = |what: String| Failure::new("not_geojson", format!("no feature collection: {what}"));
    let collection: Value = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    let features = match (collection["type"].as_str(), collection["features"].as_array()) {
        (Some("FeatureCollection"), Some(features)) => features,
        (Some("FeatureCollection"), None) => return Err(refused("it has no `features`".to_owned())),
        _ => return Err(refused("its `type` is another".to_owned())),
    };
    let mut quakes = (1..).zip(features).map(|(number, it)| quake(number, it)).collect::<Result<Vec<_>, _>>()?;
    quakes.sort_by_key(|quake| quake.time_ms);
    Ok(quakes)
}

fn quake(number: usize, feature: &Value) -> Result<QuakeRecorded, Failure> {
    let id = feature["id"].as_str().unwrap_or("without an id");
    let properties = &feature["properties"];
    let broken = |field: &str, expected: &str| {
        let found = &properties[field];
        let message = format!("feature {number} ({id}): `properties.{field}` is {found}, expected {expected}");
        Failure::new("broken_feature", message)
    };
    let text = |field| properties[field].as_str().ok_or_else(|| broken(field, "a text"));
    let magnitude = match properties["mag"].as_f64() {
        None if properties["mag"].is_null() => None,
        Some(magnitude) if MAGNITUDES.contains(&magnitude) => Some(magnitude),
        _ => return Err(broken("mag", "the magnitude of a quake")),
    };
    // Where it was is for maps only: without it a quake counts all the same.
    let degrees = |index: usize, most: f64| {
        feature["geometry"]["coordinates"][index].as_f64().filter(|degrees| degrees.abs() <= most)
    };
    let time_ms = properties["time"].as_i64().filter(|time_ms| TIMES_MS.contains(time_ms));
    Ok(QuakeRecorded {
        network: text("net")?.to_owned(),
        id: id.to_owned(),
        magnitude,
        place: properties["place"].as_str().unwrap_or("unknown place").to_owned(),
        time_ms: time_ms.ok_or_else(|| broken("time", "milliseconds since 1970"))?,
        natural: text("type")? == "earthquake",
        longitude: degrees(0, 180.0),
        latitude: degrees(1, 90.0),
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
        check(&QUAKE.replace("net", "n"), "feature 2 (ci1): `properties.net` is null, expected a text");
        check(
            &QUAKE.replace("7", "0.5"),
            "feature 2 (ci1): `properties.time` is 0.5, expected milliseconds since 1970",
        );
        check(
            &QUAKE.replace("-0.5", "99"),
            "feature 2 (ci1): `properties.mag` is 99, expected the magnitude of a quake",
        );
        check("7", "feature 2 (without an id): `properties.net` is null, expected a text");
    }

    #[test]
    fn what_is_not_geojson_is_refused() {
        let no_list = r#"{"type": "FeatureCollection", "features": 7}"#;
        for text in ["", "7", "{", r#"{"type": "Feature", "features": []}"#, no_list] {
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
