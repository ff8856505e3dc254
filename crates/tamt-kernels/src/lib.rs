//! PLACEHOLDER by the lead so that others can compile; the kernels helper replaces this whole file with its own modules.
#![allow(missing_docs, clippy::all)]
pub mod rng {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Purpose(pub u32);
    impl Purpose {
        pub const DROPOUT: Self = Self(1);
        pub const CORRUPTION: Self = Self(2);
        pub const EVAL_CORRUPTION: Self = Self(3);
        pub const SHUFFLE: Self = Self(4);
        pub const INIT: Self = Self(5);
        pub const MASK_INIT: Self = Self(6);
        pub const SCORE_INIT: Self = Self(7);
        pub const BERNOULLI_MASK: Self = Self(8);
        pub const WORLD: Self = Self(9);
        pub const SUBSET: Self = Self(10);
    }
    #[derive(Clone, Copy, Debug)]
    pub struct Stream {
        key: [u32; 2],
        hi: [u32; 2],
    }
    impl Stream {
        pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
            let k =
                Self { key: [seed as u32, (seed >> 32) as u32], hi: [step as u32, (step >> 32) as u32 ^ 0x5bd1_e995] }
                    .block(u64::from(purpose.0));
            Self { key: [k[0], k[1]], hi: [k[2], k[3]] }
        }
        pub fn fork(&self, site: u32) -> Self {
            let k = self.block(u64::MAX - u64::from(site));
            Self { key: [k[0], k[1]], hi: [k[2], k[3]] }
        }
        pub fn block(&self, index: u64) -> [u32; 4] {
            let mut c = [index as u32, (index >> 32) as u32, self.hi[0], self.hi[1]];
            let mut k = self.key;
            for _ in 0..10 {
                let p0 = 0xD251_1F53u64 * u64::from(c[0]);
                let p1 = 0xCD9E_8D57u64 * u64::from(c[2]);
                c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
                k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
            }
            c
        }
        pub fn u32_at(&self, i: u64) -> u32 {
            self.block(i)[0]
        }
        pub fn uniform_at(&self, i: u64) -> f32 {
            (self.u32_at(i) >> 8) as f32 / 16_777_216.0
        }
        pub fn below_at(&self, i: u64, n: u32) -> u32 {
            let b = self.block(i);
            ((u128::from((u64::from(b[0]) << 32) | u64::from(b[1])) * u128::from(n)) >> 64) as u32
        }
        pub fn normal_at(&self, i: u64) -> f32 {
            let b = self.block(i);
            let u = (f64::from(b[0]) + 1.0) / 4_294_967_297.0;
            let v = f64::from(b[1]) / 4_294_967_296.0;
            ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
        }
        pub fn shuffle(&self, x: &mut [u32]) {
            for i in (1..x.len()).rev() {
                let j = self.below_at(i as u64, i as u32 + 1) as usize;
                x.swap(i, j);
            }
        }
    }
}
pub mod select {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Key {
        Value,
        Magnitude,
    }
    impl Key {
        pub fn of(self, v: f32) -> f32 {
            match self {
                Self::Value => v + 0.0,
                Self::Magnitude => v.abs(),
            }
        }
    }
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Cut {
        pub value: f32,
        pub index: u64,
    }
    impl Cut {
        pub const NONE: Self = Self { value: f32::NEG_INFINITY, index: 0 };
        pub fn strict(value: f32) -> Self {
            Self { value, index: u64::MAX }
        }
    }
    pub fn smallest_k(tensors: &[&[f32]], k: u64, key: Key) -> Cut {
        if k == 0 {
            return Cut::NONE;
        }
        let mut all: Vec<(f32, u64)> =
            tensors.iter().flat_map(|t| t.iter()).enumerate().map(|(i, &v)| (key.of(v), i as u64)).collect();
        let (_, x, _) = all.select_nth_unstable_by(k as usize - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Cut { value: x.0, index: x.1 }
    }
}
pub mod bits {
    use crate::select::{Cut, Key};
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct BitMask {
        rows: usize,
        cols: usize,
        bytes: Vec<u8>,
    }
    impl BitMask {
        pub fn zeros(rows: usize, cols: usize) -> Self {
            Self { rows, cols, bytes: vec![0; rows * cols.div_ceil(8)] }
        }
        pub fn ones(rows: usize, cols: usize) -> Self {
            let mut m = Self::zeros(rows, cols);
            for r in 0..rows {
                for c in 0..cols {
                    m.set(r, c, true);
                }
            }
            m
        }
        pub fn from_bytes(rows: usize, cols: usize, bytes: Vec<u8>) -> Option<Self> {
            if bytes.len() != rows.checked_mul(cols.div_ceil(8))? {
                return None;
            }
            let m = Self { rows, cols, bytes };
            if cols % 8 != 0 {
                for r in 0..rows {
                    if m.row(r).last().unwrap() >> (cols % 8) != 0 {
                        return None;
                    }
                }
            }
            Some(m)
        }
        pub fn as_bytes(&self) -> &[u8] {
            &self.bytes
        }
        pub fn into_bytes(self) -> Vec<u8> {
            self.bytes
        }
        pub fn rows(&self) -> usize {
            self.rows
        }
        pub fn cols(&self) -> usize {
            self.cols
        }
        pub fn row_bytes(&self) -> usize {
            self.cols.div_ceil(8)
        }
        pub fn row(&self, r: usize) -> &[u8] {
            let s = self.row_bytes();
            &self.bytes[r * s..][..s]
        }
        pub fn get(&self, r: usize, c: usize) -> bool {
            self.bytes[r * self.row_bytes() + c / 8] >> (c % 8) & 1 == 1
        }
        pub fn set(&mut self, r: usize, c: usize, v: bool) {
            let i = r * self.row_bytes() + c / 8;
            if v { self.bytes[i] |= 1 << (c % 8) } else { self.bytes[i] &= !(1 << (c % 8)) }
        }
        pub fn len(&self) -> usize {
            self.rows * self.cols
        }
        pub fn count_ones(&self) -> usize {
            self.bytes.iter().map(|b| b.count_ones() as usize).sum()
        }
        pub fn intersection_count(&self, o: &Self) -> usize {
            self.bytes.iter().zip(&o.bytes).map(|(a, b)| (a & b).count_ones() as usize).sum()
        }
        pub fn union_count(&self, o: &Self) -> usize {
            self.bytes.iter().zip(&o.bytes).map(|(a, b)| (a | b).count_ones() as usize).sum()
        }
        pub fn copy_masked(&self, w: &[f32], out: &mut [f32]) {
            out.copy_from_slice(w);
            self.mask_in_place(out);
        }
        pub fn mask_in_place(&self, w: &mut [f32]) {
            for r in 0..self.rows {
                for c in 0..self.cols {
                    if !self.get(r, c) {
                        w[r * self.cols + c] = 0.0;
                    }
                }
            }
        }
        pub fn keep_above(&mut self, v: &[f32], cut: Cut, key: Key) -> usize {
            self.keep_above_at(v, cut, key, 0)
        }
        pub fn keep_above_at(&mut self, v: &[f32], cut: Cut, key: Key, first: u64) -> usize {
            let mut flips = 0;
            for (i, &x) in v.iter().enumerate() {
                let x = key.of(x);
                let keep = x > cut.value || (x == cut.value && first + i as u64 > cut.index);
                let (r, c) = (i / self.cols, i % self.cols);
                if self.get(r, c) != keep {
                    flips += 1;
                    self.set(r, c, keep);
                }
            }
            flips
        }
    }
}
pub mod dropout {
    use crate::rng::Stream;
    #[derive(Clone, Copy, Debug)]
    pub struct Dropout {
        pub p: f32,
        pub stream: Stream,
    }
    impl Dropout {
        pub fn factor(&self, i: u64) -> f32 {
            if self.stream.uniform_at(i) >= self.p { 1.0 / (1.0 - self.p) } else { 0.0 }
        }
    }
    pub fn apply(x: &mut [f32], d: Dropout) {
        for (i, v) in x.iter_mut().enumerate() {
            *v *= d.factor(i as u64);
        }
    }
}
pub mod linear {
    use crate::bits::BitMask;
    #[derive(Clone, Copy, Debug)]
    pub struct Weight<'a> {
        pub values: &'a [f32],
        pub rows: usize,
        pub cols: usize,
        pub mask: Option<&'a BitMask>,
    }
    #[derive(Debug, Default)]
    pub struct Scratch {
        pub buf: Vec<f32>,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Write {
        Store,
        Add,
    }
    #[derive(Clone, Copy, Debug)]
    pub enum WeightGrad<'a> {
        Dense,
        Masked(&'a BitMask),
        Score(&'a [f32]),
    }
    fn mm(
        m: usize,
        n: usize,
        k: usize,
        c: &mut [f32],
        a: &[f32],
        ars: isize,
        acs: isize,
        b: &[f32],
        brs: isize,
        bcs: isize,
        add: bool,
    ) {
        if m == 0 || n == 0 {
            return;
        }
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                add,
                a.as_ptr(),
                acs,
                ars,
                b.as_ptr(),
                bcs,
                brs,
                if add { 1.0 } else { 0.0 },
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            )
        }
    }
    fn masked<'a>(w: &Weight<'a>, s: &'a mut Scratch) -> &'a [f32] {
        match w.mask {
            None => w.values,
            Some(m) => {
                s.buf.resize(w.values.len(), 0.0);
                m.copy_masked(w.values, &mut s.buf[..w.values.len()]);
                &s.buf[..w.values.len()]
            }
        }
    }
    pub fn forward(x: &[f32], w: Weight<'_>, bias: Option<&[f32]>, y: &mut [f32], s: &mut Scratch) {
        let (n, k) = (w.rows, w.cols);
        let t = x.len() / k;
        let e = masked(&w, s);
        mm(t, n, k, y, x, k as isize, 1, e, 1, k as isize, false);
        if let Some(b) = bias {
            for r in y.chunks_mut(n) {
                for (v, b) in r.iter_mut().zip(b) {
                    *v += b;
                }
            }
        }
    }
    pub fn backward_input(dy: &[f32], w: Weight<'_>, dx: &mut [f32], mode: Write, s: &mut Scratch) {
        let (n, k) = (w.rows, w.cols);
        let t = dy.len() / n;
        let e = masked(&w, s);
        mm(t, k, n, dx, dy, n as isize, 1, e, k as isize, 1, mode == Write::Add);
    }
    pub fn backward_weight(
        dy: &[f32],
        x: &[f32],
        rows: usize,
        cols: usize,
        ep: WeightGrad<'_>,
        dw: &mut [f32],
        mode: Write,
    ) {
        let t = dy.len() / rows;
        let mut tmp = vec![0.0; rows * cols];
        if t > 0 {
            mm(rows, cols, t, &mut tmp, dy, 1, rows as isize, x, cols as isize, 1, false);
        }
        finish(ep, &mut tmp);
        put(&tmp, dw, mode);
    }
    pub(crate) fn finish(ep: WeightGrad<'_>, tmp: &mut [f32]) {
        match ep {
            WeightGrad::Dense => {}
            WeightGrad::Masked(m) => m.mask_in_place(tmp),
            WeightGrad::Score(w) => {
                for (a, b) in tmp.iter_mut().zip(w) {
                    *a *= b;
                }
            }
        }
    }
    pub(crate) fn put(src: &[f32], dst: &mut [f32], mode: Write) {
        match mode {
            Write::Store => dst.copy_from_slice(src),
            Write::Add => {
                for (a, b) in dst.iter_mut().zip(src) {
                    *a += b;
                }
            }
        }
    }
    pub fn backward_bias(dy: &[f32], db: &mut [f32], mode: Write, _s: &mut Scratch) {
        let n = db.len();
        let mut t = vec![0.0; n];
        for r in dy.chunks(n) {
            for (a, b) in t.iter_mut().zip(r) {
                *a += b;
            }
        }
        put(&t, db, mode);
    }
}
pub mod embedding {
    use crate::linear::{Scratch, Weight, WeightGrad, Write, finish, put};
    pub fn forward(
        word: Weight<'_>,
        ids: &[u32],
        pos: &[f32],
        pids: &[u32],
        ty: &[f32],
        tids: &[u32],
        out: &mut [f32],
    ) {
        let h = word.cols;
        for (t, o) in out.chunks_mut(h).enumerate() {
            let (i, p, y) = (ids[t] as usize, pids[t] as usize, tids[t] as usize);
            for c in 0..h {
                let k = word.mask.is_none_or(|m| m.get(i, c));
                o[c] = if k { word.values[i * h + c] } else { 0.0 } + pos[p * h + c] + ty[y * h + c];
            }
        }
    }
    pub fn backward(
        d: &[f32],
        ids: &[u32],
        cols: usize,
        skip: Option<u32>,
        ep: WeightGrad<'_>,
        g: &mut [f32],
        mode: Write,
        _s: &mut Scratch,
    ) {
        let mut t = vec![0.0; g.len()];
        for (r, &i) in d.chunks(cols).zip(ids) {
            if Some(i) != skip {
                for (a, b) in t[i as usize * cols..][..cols].iter_mut().zip(r) {
                    *a += b;
                }
            }
        }
        finish(ep, &mut t);
        put(&t, g, mode);
    }
}
pub mod layer_norm {
    use crate::dropout::Dropout;
    use crate::linear::{Scratch, Write, put};
    pub fn forward(
        x: &mut [f32],
        res: Option<&[f32]>,
        d: Option<Dropout>,
        g: &[f32],
        b: &[f32],
        eps: f32,
        y: &mut [f32],
        mean: &mut [f32],
        rstd: &mut [f32],
    ) {
        if let Some(d) = d {
            crate::dropout::apply(x, d);
        }
        if let Some(r) = res {
            crate::reduce::add(x, r);
        }
        let h = g.len();
        for (t, r) in x.chunks(h).enumerate() {
            let m = r.iter().map(|v| f64::from(*v)).sum::<f64>() / h as f64;
            let v = r.iter().map(|v| (f64::from(*v) - m).powi(2)).sum::<f64>() / h as f64;
            mean[t] = m as f32;
            rstd[t] = (1.0 / (v + f64::from(eps)).sqrt()) as f32;
            for c in 0..h {
                y[t * h + c] = (r[c] - mean[t]) * rstd[t] * g[c] + b[c];
            }
        }
    }
    pub fn backward(
        dy: &[f32],
        s: &[f32],
        mean: &[f32],
        rstd: &[f32],
        g: &[f32],
        ds: &mut [f32],
        grads: Option<(&mut [f32], &mut [f32])>,
        mode: Write,
        _x: &mut Scratch,
    ) {
        let h = g.len();
        let (mut dg, mut db) = (vec![0.0; h], vec![0.0; h]);
        for t in 0..mean.len() {
            let (dy, s) = (&dy[t * h..][..h], &s[t * h..][..h]);
            let (mut a, mut b) = (0.0, 0.0);
            for c in 0..h {
                let xh = (s[c] - mean[t]) * rstd[t];
                a += dy[c] * g[c];
                b += dy[c] * g[c] * xh;
                dg[c] += dy[c] * xh;
                db[c] += dy[c];
            }
            for c in 0..h {
                let xh = (s[c] - mean[t]) * rstd[t];
                ds[t * h + c] = rstd[t] * (dy[c] * g[c] - a / h as f32 - xh * b / h as f32);
            }
        }
        if let Some((g, b)) = grads {
            put(&dg, g, mode);
            put(&db, b, mode);
        }
    }
}
pub mod activation {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Activation {
        Gelu,
        GeluTanh,
        Relu,
        Tanh,
    }
    fn erf(x: f64) -> f64 {
        let (mut s, mut t, mut n) = (x, x, 0.0);
        if x.abs() > 5.0 {
            return x.signum();
        }
        while f64::abs(t) > 1e-17 * f64::abs(s) && n < 300.0 {
            n += 1.0;
            t *= -x * x / n;
            s += t / (2.0 * n + 1.0);
        }
        s * 2.0 / std::f64::consts::PI.sqrt()
    }
    fn f(k: Activation, u: f64) -> f64 {
        match k {
            Activation::Gelu => 0.5 * u * (1.0 + erf(u / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u.powi(3))).tanh())
            }
            Activation::Relu => u.max(0.0),
            Activation::Tanh => u.tanh(),
        }
    }
    pub fn forward(k: Activation, u: &[f32], y: &mut [f32]) {
        for (u, y) in u.iter().zip(y) {
            *y = f(k, f64::from(*u)) as f32;
        }
    }
    pub fn backward(k: Activation, u: &[f32], d: &mut [f32]) {
        for (u, d) in u.iter().zip(d) {
            let x = f64::from(*u);
            *d *= match k {
                Activation::Gelu => {
                    0.5 * (1.0 + erf(x / 2f64.sqrt())) + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
                }
                Activation::Relu => {
                    if x > 0.0 {
                        1.0
                    } else {
                        0.0
                    }
                }
                Activation::Tanh => 1.0 - x.tanh().powi(2),
                Activation::GeluTanh => (f(k, x + 1e-5) - f(k, x - 1e-5)) / 2e-5,
            } as f32;
        }
    }
}
pub mod attention {
    use crate::dropout::Dropout;
    use crate::linear::Scratch;
    #[derive(Clone, Copy, Debug)]
    pub struct Packed<'a> {
        pub bounds: &'a [usize],
        pub heads: usize,
        pub head_dim: usize,
    }
    fn each(s: &Packed<'_>, mut f: impl FnMut(usize, usize, usize, usize)) {
        let mut base = 0;
        for b in s.bounds.windows(2) {
            for h in 0..s.heads {
                f(b[0], b[1], h, base);
                base += (b[1] - b[0]).pow(2);
            }
        }
    }
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }
    pub fn forward(
        q: &[f32],
        k: &[f32],
        v: &[f32],
        s: &Packed<'_>,
        d: Option<Dropout>,
        ctx: &mut [f32],
        lse: &mut [f32],
        _x: &mut Scratch,
    ) {
        let (hd, w) = (s.head_dim, s.heads * s.head_dim);
        let sc = 1.0 / (hd as f32).sqrt();
        ctx.fill(0.0);
        each(s, |a, b, h, base| {
            for i in a..b {
                let at = |t: usize| t * w + h * hd..t * w + h * hd + hd;
                let z: Vec<f32> = (a..b).map(|j| sc * dot(&q[at(i)], &k[at(j)])).collect();
                let m = z.iter().copied().fold(f32::MIN, f32::max);
                let l = m + z.iter().map(|z| (z - m).exp()).sum::<f32>().ln();
                lse[i * s.heads + h] = l;
                for j in a..b {
                    let p =
                        (z[j - a] - l).exp() * d.map_or(1.0, |d| d.factor((base + (i - a) * (b - a) + j - a) as u64));
                    for c in 0..hd {
                        ctx[i * w + h * hd + c] += p * v[j * w + h * hd + c];
                    }
                }
            }
        });
    }
    pub fn backward(
        dc: &[f32],
        q: &[f32],
        k: &[f32],
        v: &[f32],
        _ctx: &[f32],
        lse: &[f32],
        s: &Packed<'_>,
        d: Option<Dropout>,
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
        _x: &mut Scratch,
    ) {
        let (hd, w) = (s.head_dim, s.heads * s.head_dim);
        let sc = 1.0 / (hd as f32).sqrt();
        dq.fill(0.0);
        dk.fill(0.0);
        dv.fill(0.0);
        each(s, |a, b, h, base| {
            for i in a..b {
                let at = |t: usize| t * w + h * hd..t * w + h * hd + hd;
                let l = lse[i * s.heads + h];
                let p: Vec<f32> = (a..b).map(|j| (sc * dot(&q[at(i)], &k[at(j)]) - l).exp()).collect();
                let f: Vec<f32> =
                    (a..b).map(|j| d.map_or(1.0, |d| d.factor((base + (i - a) * (b - a) + j - a) as u64))).collect();
                let dp: Vec<f32> = (a..b).map(|j| f[j - a] * dot(&dc[at(i)], &v[at(j)])).collect();
                let sum = dot(&p, &dp);
                for j in a..b {
                    let n = j - a;
                    let ds = p[n] * (dp[n] - sum) * sc;
                    for c in 0..hd {
                        let (ic, jc) = (i * w + h * hd + c, j * w + h * hd + c);
                        dv[jc] += p[n] * f[n] * dc[ic];
                        dq[ic] += ds * k[jc];
                        dk[jc] += ds * q[ic];
                    }
                }
            }
        });
    }
    pub fn score_mse(
        q: &[f32],
        k: &[f32],
        tq: &[f32],
        tk: &[f32],
        s: &Packed<'_>,
        wt: f32,
        mut g: Option<(&mut [f32], &mut [f32])>,
        _x: &mut Scratch,
    ) -> f64 {
        let (hd, w) = (s.head_dim, s.heads * s.head_dim);
        let sc = 1.0 / (hd as f32).sqrt();
        let mut sum = 0.0;
        each(s, |a, b, h, _| {
            for i in a..b {
                for j in a..b {
                    let at = |t: usize| t * w + h * hd..t * w + h * hd + hd;
                    let raw = sc * dot(&q[at(i)], &k[at(j)]);
                    let t = sc * dot(&tq[at(i)], &tk[at(j)]);
                    let (sv, tv) = (if raw <= -100.0 { 0.0 } else { raw }, if t <= -100.0 { 0.0 } else { t });
                    sum += f64::from(sv - tv).powi(2);
                    if raw > -100.0 {
                        if let Some((dq, dk)) = &mut g {
                            let ds = 2.0 * wt * (sv - tv) * sc;
                            for c in 0..hd {
                                let (ic, jc) = (i * w + h * hd + c, j * w + h * hd + c);
                                dq[ic] += ds * k[jc];
                                dk[jc] += ds * q[ic];
                            }
                        }
                    }
                }
            }
        });
        sum
    }
}
pub mod cross_entropy {
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Outcome {
        pub loss_sum: f64,
        pub correct: usize,
    }
    impl std::ops::AddAssign for Outcome {
        fn add_assign(&mut self, o: Self) {
            self.loss_sum += o.loss_sum;
            self.correct += o.correct;
        }
    }
    pub fn forward(l: &[f32], labels: &[u32]) -> Outcome {
        forward_backward(&mut l.to_vec(), labels, 0.0)
    }
    pub fn forward_backward(l: &mut [f32], labels: &[u32], scale: f32) -> Outcome {
        let mut o = Outcome::default();
        if labels.is_empty() {
            return o;
        }
        let v = l.len() / labels.len();
        for (r, &y) in l.chunks_mut(v).zip(labels) {
            let m = r.iter().copied().fold(f32::MIN, f32::max);
            if r.iter().position(|x| *x == m) == Some(y as usize) {
                o.correct += 1;
            }
            let z = f64::from(m) + r.iter().map(|x| f64::from(x - m).exp()).sum::<f64>().ln();
            o.loss_sum += z - f64::from(r[y as usize]);
            for x in r.iter_mut() {
                *x = scale * (f64::from(*x) - z).exp() as f32;
            }
            r[y as usize] -= scale;
        }
        o
    }
}
pub mod distance {
    pub fn cosine(s: &[f32], t: &[f32], cols: usize, w: f32, mut ds: Option<&mut [f32]>) -> f64 {
        let mut sum = 0.0;
        for (r, (a, b)) in s.chunks(cols).zip(t.chunks(cols)).enumerate() {
            let d = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            let (na, nb) = (d(a, a).sqrt().max(1e-8), d(b, b).sqrt().max(1e-8));
            let c = d(a, b) / (na * nb);
            sum += 1.0 - c;
            if let Some(ds) = &mut ds {
                for i in 0..cols {
                    ds[r * cols + i] -=
                        (f64::from(w) * (f64::from(b[i]) / (na * nb) - c * f64::from(a[i]) / (na * na))) as f32;
                }
            }
        }
        sum
    }
    pub fn mse(s: &[f32], t: &[f32], w: f32, ds: Option<&mut [f32]>) -> f64 {
        if let Some(ds) = ds {
            for ((d, s), t) in ds.iter_mut().zip(s).zip(t) {
                *d += 2.0 * w * (s - t);
            }
        }
        s.iter().zip(t).map(|(s, t)| f64::from(s - t).powi(2)).sum()
    }
}
pub mod relation {
    use crate::linear::Scratch;
    pub fn token(
        s: &[f32],
        t: &[f32],
        bounds: &[usize],
        cols: usize,
        w: f32,
        mut ds: Option<&mut [f32]>,
        x: &mut Scratch,
    ) -> f64 {
        bounds
            .windows(2)
            .map(|b| {
                let r = b[0] * cols..b[1] * cols;
                gram_mse(&s[r.clone()], &t[r.clone()], b[1] - b[0], cols, w, ds.as_deref_mut().map(|d| &mut d[r]), x)
            })
            .sum()
    }
    pub fn gram_mse(
        s: &[f32],
        t: &[f32],
        rows: usize,
        cols: usize,
        w: f32,
        mut ds: Option<&mut [f32]>,
        _x: &mut Scratch,
    ) -> f64 {
        let sc = 1.0 / (cols as f32).sqrt();
        let g = |h: &[f32], i: usize, j: usize| {
            sc * h[i * cols..][..cols].iter().zip(&h[j * cols..][..cols]).map(|(a, b)| a * b).sum::<f32>()
        };
        let mut sum = 0.0;
        for i in 0..rows {
            for j in 0..rows {
                let e = g(s, i, j) - g(t, i, j);
                sum += f64::from(e).powi(2);
                if let Some(d) = &mut ds {
                    for c in 0..cols {
                        d[i * cols + c] += 4.0 * w * e * sc * s[j * cols + c];
                    }
                }
            }
        }
        sum
    }
}
pub mod optim {
    #[derive(Clone, Copy, Debug)]
    pub struct AdamW {
        pub beta1: f32,
        pub beta2: f32,
        pub eps: f32,
        pub weight_decay: f32,
    }
    #[derive(Clone, Copy, Debug)]
    pub struct BertAdam {
        pub beta1: f32,
        pub beta2: f32,
        pub eps: f32,
        pub weight_decay: f32,
    }
    impl AdamW {
        pub fn step(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], lr: f32, t: u64, s: f32) {
            let c1 = 1.0 - f64::from(self.beta1).powi(t as i32);
            let c2 = (1.0 - f64::from(self.beta2).powi(t as i32)).sqrt();
            for i in 0..p.len() {
                let g = g[i] * s;
                m[i] = self.beta1 * m[i] + (1.0 - self.beta1) * g;
                v[i] = self.beta2 * v[i] + (1.0 - self.beta2) * g * g;
                p[i] -= (f64::from(lr) * c2 / c1) as f32 * m[i] / (v[i].sqrt() + self.eps);
                p[i] -= lr * self.weight_decay * p[i];
            }
        }
    }
    impl BertAdam {
        pub fn step(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], lr: f32, s: f32) {
            for i in 0..p.len() {
                let g = g[i] * s;
                m[i] = self.beta1 * m[i] + (1.0 - self.beta1) * g;
                v[i] = self.beta2 * v[i] + (1.0 - self.beta2) * g * g;
                p[i] -= lr * (m[i] / (v[i].sqrt() + self.eps) + self.weight_decay * p[i]);
            }
        }
    }
}
pub mod reduce {
    pub fn sum_squares(x: &[f32]) -> f64 {
        x.iter().map(|v| f64::from(*v).powi(2)).sum()
    }
    pub fn sum(x: &[f32]) -> f64 {
        x.iter().map(|v| f64::from(*v)).sum()
    }
    pub fn all_finite(x: &[f32]) -> bool {
        x.iter().all(|v| v.is_finite())
    }
    pub fn add(d: &mut [f32], s: &[f32]) {
        for (a, b) in d.iter_mut().zip(s) {
            *a += b;
        }
    }
    pub fn scale(x: &mut [f32], f: f32) {
        for v in x {
            *v *= f;
        }
    }
    pub fn gather_rows(s: &[f32], cols: usize, rows: &[u32], d: &mut [f32]) {
        for (o, &r) in d.chunks_mut(cols).zip(rows) {
            o.copy_from_slice(&s[r as usize * cols..][..cols]);
        }
    }
    pub fn scatter_add_rows(s: &[f32], cols: usize, rows: &[u32], d: &mut [f32]) {
        for (i, &r) in s.chunks(cols).zip(rows) {
            add(&mut d[r as usize * cols..][..cols], i);
        }
    }
}
