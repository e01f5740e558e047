//! Scores texts by a model's hidden states:  score detectors.npz STATES...
//! A file of states holds one text as float32, (states, tokens, width), little-endian.
//!     rustc score.rs -L LIBRARIES -C link-arg=-Wl,-rpath,LIBRARIES
use std::ffi::{c_char, c_int, c_void, CString};
use std::{env, fs, mem::size_of, ptr::null, ptr::null_mut};

#[repr(C)] #[derive(Default)]
struct Info { size: usize, detectors: usize, states: usize, width: usize, known: [c_int; 4],
              domains: usize, workspace: usize, stream: usize }
#[repr(C)]
struct States { layers: *const c_void, base: *const c_void, layer_stride: isize, row_stride: isize,
                layer_count: usize, rows: usize, width: usize, dtype: c_int }
#[repr(C)] #[derive(Clone, Default)]
struct Reading { status: c_int, flagged: c_int, score: f64, threshold: f64, p_value: f64,
                 evidence: f64, layer: c_int, reserved: c_int }
#[repr(C)]
struct Score { size: usize, states: States, mask: *const u8, roles: *const u8, chosen: *const u8,
               workspace: *mut u64, workspace_size: usize, readings: *mut Reading, each: usize,
               final_norm: c_int }
#[repr(C)]
struct Decide { size: usize, readings: *mut Reading, each: usize, domain: *const c_char }
#[repr(C)] #[derive(Default)]
struct Verdict { size: usize, flagged: c_int, invalid: c_int, p_value: f64, domain: [c_int; 2] }
#[link(name = "layerguard")]
extern "C" {
    fn lg_open(path: *const c_char, options: *const c_void, guard: *mut *mut c_void) -> c_int;
    fn lg_guard_describe(guard: *const c_void, info: *mut Info) -> c_int;
    fn lg_score(guard: *const c_void, call: *const Score) -> c_int;
    fn lg_decide(guard: *const c_void, call: *const Decide, verdict: *mut Verdict) -> c_int;
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let path = CString::new(arguments[1].as_str()).expect("a path");
    let (mut guard, size) = (null_mut(), size_of::<Info>());
    let mut info = Info { size, ..Default::default() };
    assert_eq!(unsafe { lg_open(path.as_ptr(), null(), &mut guard) }, 0, "lg_open");
    assert_eq!(unsafe { lg_guard_describe(guard, &mut info) }, 0, "lg_guard_describe");
    let (each, mut work) = (size_of::<Reading>(), vec![0u64; info.workspace / 8 + 1]);
    let mut readings = vec![Reading::default(); info.detectors];
    for name in &arguments[2..] {
        let (bytes, row) = (fs::read(name).expect(name), info.width * 4);
        let (rows, base) = (bytes.len() / row / info.states, bytes.as_ptr().cast());
        assert!(rows * row * info.states == bytes.len() && info.known[..2] == [1, 1], "{}", name);
        let (layer_stride, row_stride) = ((rows * row) as isize, row as isize);
        let states = States { layers: null(), base, layer_stride, row_stride,
                              layer_count: info.states, rows, width: info.width, dtype: 0 };
        let (workspace, found) = (work.as_mut_ptr(), readings.as_mut_ptr());
        let call = Score { size: size_of::<Score>(), states, mask: null(), roles: null(),
                           chosen: null(), workspace, workspace_size: info.workspace,
                           readings: found, each, final_norm: 0 };
        let mut verdict = Verdict { size: size_of::<Verdict>(), ..Default::default() };
        assert_eq!(unsafe { lg_score(guard, &call) }, 0, "lg_score");
        let decide = Decide { size: size_of::<Decide>(), readings: found, each, domain: null() };
        assert_eq!(unsafe { lg_decide(guard, &decide, &mut verdict) }, 0, "lg_decide");
        let scores: Vec<String> = readings.iter().map(|r| format!("{:?}", r.score)).collect();
        println!("{} {}", verdict.flagged, scores.join(" "));
    }
}
