//! Speed of the frozen backbone, in images per second: EfficientNet-Lite0 at 224 pixels, batches of
//! 32, fresh weights. bench/features.sh runs it beside eager PyTorch. Usage: features THREADS
//! BATCHES

use std::{env, time::Instant};

use rehead_trainer::models::{inference::Extractor, registry};
use tch::{Device, Kind, Tensor, nn};

const BATCH: i64 = 32;

fn main() {
    let mut arguments = env::args()
        .skip(1)
        .map(|text| text.parse::<i32>().expect("a number"));
    let threads = arguments.next().unwrap_or(2);
    let batches = arguments.next().unwrap_or(8);
    tch::set_num_threads(threads);
    let architecture = registry::find("tf_efficientnet_lite0").expect("it is registered");
    let vs = nn::VarStore::new(Device::Cpu);
    let extractor = Extractor::new(&architecture.build(&vs.root(), &architecture.input));
    let images = Tensor::randn([BATCH, 3, 224, 224], (Kind::Float, Device::Cpu));
    let _ = extractor.features(&images);
    let start = Instant::now();
    for _ in 0..batches {
        let _ = extractor.features(&images);
    }
    let images = f64::from(batches) * BATCH as f64;
    #[expect(clippy::print_stdout, reason = "it is the result")]
    {
        println!("{:.2}", images / start.elapsed().as_secs_f64());
    }
}
