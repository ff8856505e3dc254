//! Ranges and ticks of axes.

/// An axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// The label.
    pub label: String,
    /// Whether the scale is logarithmic. Values of 0 are then drawn left of the smallest.
    pub log: bool,
    /// The values at ticks; empty for round numbers.
    pub ticks: Vec<f64>,
    /// The unit behind the number at a tick.
    pub unit: &'static str,
}

/// An axis with the places of its values.
pub(super) struct Scale {
    axis: Axis,
    /// The first and the last place.
    pub(super) range: (f64, f64),
    /// The places of ticks.
    pub(super) ticks: Vec<f64>,
    /// The place of 0 on a logarithmic axis.
    zero: Option<f64>,
}

/// Most ticks of an axis.
const MOST: usize = 6;

impl Scale {
    /// The scale on which `values` are seen.
    pub(super) fn new(axis: &Axis, values: &[f64], most: usize) -> Self {
        if axis.log { Self::logarithmic(axis, values) } else { Self::linear(axis, values, most) }
    }

    fn linear(axis: &Axis, values: &[f64], most: usize) -> Self {
        let (low, high) = bounds(values);
        let spread = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
        let mut range = (low - 0.06 * spread, high + 0.06 * spread);
        if low >= 0.0 && range.0 < 0.0 {
            range.0 = -0.02 * spread;
        }
        let ticks = if axis.ticks.is_empty() { round_ticks(range, most.min(MOST)) } else { thin(&axis.ticks, 8) };
        Self { axis: axis.clone(), range, ticks, zero: None }
    }

    fn logarithmic(axis: &Axis, values: &[f64]) -> Self {
        let positive: Vec<f64> = values.iter().copied().filter(|value| *value > 0.0).collect();
        let (low, high) = bounds(&positive);
        let (low, high) = (low.max(f64::MIN_POSITIVE).log10(), high.max(f64::MIN_POSITIVE).log10());
        let spread = (high - low).max(0.3);
        let zero = (positive.len() < values.len()).then_some(low - 0.18 * spread);
        let range = (zero.unwrap_or(low) - 0.06 * spread, high + 0.06 * spread);
        let inside = |place: &f64| (range.0..=range.1).contains(place);
        let mut ticks: Vec<f64> = if axis.ticks.is_empty() {
            let decades = range.0.floor() as i32..=range.1.ceil() as i32;
            let steps: &[f64] = if spread > 3.0 {
                &[1.0]
            } else if spread > 1.2 {
                &[1.0, 3.0]
            } else {
                &[1.0, 2.0, 5.0]
            };
            let of_decade = |decade: i32| steps.iter().map(move |step| step.log10() + f64::from(decade));
            decades.flat_map(of_decade).filter(inside).filter(|tick| zero.is_none() || *tick > low - 0.02).collect()
        } else {
            let positive: Vec<f64> = axis.ticks.iter().copied().filter(|tick| *tick > 0.0).collect();
            apart(&positive.iter().map(|tick| tick.log10()).collect::<Vec<_>>(), 0.13 * (range.1 - range.0))
        };
        ticks.extend(zero);
        Self { axis: axis.clone(), range, ticks, zero }
    }

    /// The place of a value.
    pub(super) fn place(&self, value: f64) -> f64 {
        match (self.axis.log, self.zero) {
            (true, Some(zero)) if value <= 0.0 => zero,
            (true, _) => value.max(f64::MIN_POSITIVE).log10(),
            (false, _) => value,
        }
    }

    /// The text at the tick of a place.
    pub(super) fn text(&self, place: f64) -> String {
        let value = match (self.axis.log, self.zero) {
            (true, Some(zero)) if (place - zero).abs() < 1e-9 => 0.0,
            (true, _) => 10_f64.powf(place),
            (false, _) => place,
        };
        format!("{}{}", short(value), self.axis.unit)
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) }
}

/// Round numbers inside a range: multiples of 1, 2 or 5 times a power of ten.
fn round_ticks((low, high): (f64, f64), most: usize) -> Vec<f64> {
    let rough = (high - low) / most as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high).take(50).collect()
}

/// At most `most` of the ticks, evenly chosen.
fn thin(ticks: &[f64], most: usize) -> Vec<f64> {
    let every = ticks.len().div_ceil(most).max(1);
    ticks.iter().copied().step_by(every).collect()
}

/// The ticks that are at least `gap` apart, from the last one down.
fn apart(places: &[f64], gap: f64) -> Vec<f64> {
    let mut kept: Vec<f64> = Vec::new();
    for place in places.iter().rev() {
        if kept.last().is_none_or(|last| last - place >= gap) {
            kept.push(*place);
        }
    }
    kept.reverse();
    kept
}

/// A number as short as its digits allow: 0.25, 70, 3k, 1.2e15 as 1.2·10¹⁵.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e7 {
        return crate::document::scientific(value).replace(" × ", "·").replace(".0·", "·");
    }
    if size >= 10_000.0 {
        return format!("{}k", trimmed(value / 1000.0));
    }
    trimmed(value)
}

fn trimmed(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    if rounded == 0.0 { "0".to_owned() } else { rounded.to_string().replace('-', "\u{2212}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside_the_range() {
        assert_eq!(round_ticks((0.7, 9.3), 5), [2.0, 4.0, 6.0, 8.0]);
        assert_eq!(round_ticks((51.0, 53.9), 6), [51.0, 51.5, 52.0, 52.5, 53.0, 53.5]);
    }

    #[test]
    fn a_logarithmic_axis_has_a_place_for_zero() {
        let axis = Axis { log: true, ..Axis::default() };
        let scale = Scale::new(&axis, &[0.0, 10.0, 1000.0], 6);
        assert!(scale.place(0.0) < scale.place(10.0));
        assert_eq!(scale.text(scale.place(0.0)), "0");
        assert_eq!(scale.text(2.0), "100");
    }

    #[test]
    fn numbers_at_ticks_are_short() {
        assert_eq!([0.25, 70.0, 30_000.0, 2e15, -0.5].map(short), ["0.25", "70", "30k", "2·10¹⁵", "\u{2212}0.5"]);
    }
}
