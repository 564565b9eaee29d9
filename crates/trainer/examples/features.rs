//! Speed of a frozen backbone, in images per second: fresh weights, random images at the network's
//! input size. bench/features.sh runs it beside others. Usage: features ARCHITECTURE THREADS BATCH
//! SECONDS [bfloat16]; THREADS 0: one batch at a time, whose operations have all of torch's
//! threads. REHEAD_BENCH_DEVICE names another device than the CPU.

use std::{
    env,
    time::{Duration, Instant},
};

use rehead_trainer::{
    models::{inference::Extractor, registry},
    process::{device, memory, parallel},
};
use tch::{Kind, Tensor, nn};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default: u64| {
        let text = arguments.get(index);
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let name = arguments
        .first()
        .map_or("tf_efficientnet_lite0", String::as_str);
    let (threads, batch) = (number(1, 2), number(2, 4));
    let seconds = Duration::from_secs(number(3, 5));
    memory::keep_freed();
    let architecture = registry::find(name).expect("it is registered");
    let device = env::var("REHEAD_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device = device::open(&device).expect("the device is there");
    let vs = nn::VarStore::new(device);
    let is_coarse = arguments.iter().any(|argument| argument == "bfloat16");
    let kind = if is_coarse {
        Kind::BFloat16
    } else {
        Kind::Float
    };
    let backbone = architecture.build(&vs.root(), &architecture.input);
    let extractor = Extractor::with_kind(&backbone, kind);
    let side = i64::from(architecture.input.image().expect("images").input_size);
    let run = |length: Duration| {
        let start = Instant::now();
        let workers: Vec<u64> = (0..threads).collect();
        let work = |_: &u64| {
            let shape = [batch as i64, 3, side, side];
            let images = Tensor::randn(shape, (Kind::Float, device));
            let mut done = 0;
            while start.elapsed() < length {
                // A GPU is waited for.
                let _ = extractor.features(&images).double_value(&[0, 0]);
                done += batch;
            }
            Ok(done as f64 / start.elapsed().as_secs_f64())
        };
        if threads == 0 {
            return work(&0).expect("inference works");
        }
        let rates = parallel::map(&workers, threads as usize, work);
        rates.expect("inference works").iter().sum::<f64>()
    };
    run(seconds / 5);
    let rate = run(seconds);
    #[expect(clippy::print_stdout, reason = "it is the result")]
    {
        println!("{rate:.2}");
    }
}
