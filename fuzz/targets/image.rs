//! Images: pixels within the limit, as many as width, height and channels say, or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rehead_fuzz::within;
use rehead_trainer::data::image::decode;

const PIXELS: u64 = 1 << 16;
/// Memory that a decoder may take for so many pixels, and besides (`data::image`).
const MEMORY: usize = (64 << 20) + 16 * PIXELS as usize + (8 << 20);

fuzz_target!(
    // Panics of decoders are caught (`data::image`), and must not end the run here.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        let channels = [1, 3, 4][bytes.len() % 3];
        let decoded = within(MEMORY, || decode(bytes, PIXELS, channels));
        match decoded {
            Ok(image) => {
                let pixels = u64::from(image.width) * u64::from(image.height);
                assert!((1..=PIXELS).contains(&pixels));
                assert_eq!(image.channels, channels);
                assert_eq!(image.pixels.len() as u64, pixels * u64::from(channels));
            }
            Err(error) => assert!(error.to_string().len() < 1_000, "{error}"),
        }
    }
);
