//! Rank correlation with a bootstrap confidence interval.

/// Number of bootstrap samples.
pub const RESAMPLES: usize = 10_000;

/// Fewest clusters with an interval: the interval of random orders leaves out 0 for 13 % of five pairs, and for 3 % of
/// six.
pub const LEAST_CLUSTERS: usize = 6;

/// Ranks from 1; equal values share the mean of their ranks.
#[must_use]
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        let mean = start as f64 + (tied as f64 + 1.0) / 2.0;
        order[start..start + tied].iter().for_each(|&i| ranks[i] = mean);
        start += tied;
    }
    ranks
}

/// Pearson's correlation `cov(x, y) / (sd(x) sd(y))`; `None` where one side does not vary.
fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let pairs = || x.iter().zip(y).map(|(a, b)| (a - mx, b - my));
    let (xx, yy, xy) = pairs().fold((0.0, 0.0, 0.0), |(xx, yy, xy), (a, b)| (xx + a * a, yy + b * b, xy + a * b));
    (xx > 0.0 && yy > 0.0).then(|| (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, Pearson's correlation of the ranks; `None` below three pairs or where one side does not
/// vary.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 3 {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}

/// A rank correlation over pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankCorrelation {
    /// Number of pairs.
    pub n: usize,
    /// Number of clusters of pairs.
    pub clusters: usize,
    /// Spearman's correlation.
    pub rho: f64,
    /// The percentile bootstrap's 95 % interval; `None` below [`LEAST_CLUSTERS`] clusters.
    pub interval: Option<(f64, f64)>,
}

impl RankCorrelation {
    /// Spearman's correlation of independent pairs, with an interval from [`RESAMPLES`] samples of the pairs with
    /// replacement, as `scipy.stats.bootstrap(.., paired=True, method="percentile")`. Samples in which one side does
    /// not vary have no correlation and are left out. The random numbers are the same in every report.
    #[must_use]
    pub fn of(x: &[f64], y: &[f64]) -> Option<Self> {
        Self::of_clusters(x, y, &(0..x.len()).collect::<Vec<_>>())
    }

    /// As [`of`](Self::of), of pairs that depend on each other where their clusters are equal: a bootstrap sample draws
    /// clusters with all of their pairs. Pairs in clusters of their own have the interval of independent pairs.
    #[must_use]
    pub fn of_clusters<C: PartialEq>(x: &[f64], y: &[f64], clusters: &[C]) -> Option<Self> {
        if clusters.len() != x.len() {
            return None;
        }
        let rho = spearman(x, y)?;
        let groups = groups(clusters);
        let interval = (groups.len() >= LEAST_CLUSTERS).then(|| bootstrap(x, y, &groups, RESAMPLES)).flatten();
        Some(Self { n: x.len(), clusters: groups.len(), rho, interval })
    }

    /// Whether the interval leaves out 0.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.interval.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// The pairs of each cluster, in the order of their first pairs.
fn groups<C: PartialEq>(clusters: &[C]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (pair, cluster) in clusters.iter().enumerate() {
        match groups.iter().position(|group| clusters[group[0]] == *cluster) {
            Some(group) => groups[group].push(pair),
            None => groups.push(vec![pair]),
        }
    }
    groups
}

fn bootstrap(x: &[f64], y: &[f64], groups: &[Vec<usize>], resamples: usize) -> Option<(f64, f64)> {
    let mut random = SplitMix(0x7a3d_51c2_9e48_f06b);
    let (mut sx, mut sy): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut found = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        sx.clear();
        sy.clear();
        for _ in groups {
            let group = &groups[random.below(groups.len())];
            sx.extend(group.iter().map(|&pair| x[pair]));
            sy.extend(group.iter().map(|&pair| y[pair]));
        }
        found.extend(spearman(&sx, &sy));
    }
    found.sort_by(f64::total_cmp);
    Some((quantile(&found, 0.025)?, quantile(&found, 0.975)?))
}

/// The quantile of sorted values, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * (sorted.len().checked_sub(1)? as f64);
    let (low, part) = (position.floor() as usize, position.fract());
    let next = sorted.get(low + 1).unwrap_or(&sorted[low]);
    Some(sorted[low] + part * (next - sorted[low]))
}

/// `SplitMix64` (Steele, Lea and Flood 2014): 64 random bits from a counter.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`: the high half of a 128-bit product.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}
