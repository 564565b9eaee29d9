use super::*;
use crate::{
    data::image::Rgb8,
    domain::{
        augmentation::{ColorJitter, RandAugment, RandomResizedCrop},
        base_model::Interpolation,
    },
};

const SIDE: usize = 16;

fn preprocessing() -> Preprocessing {
    Preprocessing {
        input_size: SIDE as u32,
        crop_fraction: 0.875,
        interpolation: Interpolation::Bilinear,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    }
}

/// A slope in each channel.
fn image() -> Rgb8 {
    let pixel = |place: u32| {
        [
            (place % 40 * 6) as u8,
            (place / 40 * 8) as u8,
            (place % 7 * 30) as u8,
        ]
    };
    Rgb8 {
        width: 40,
        height: 30,
        pixels: (0..40 * 30).flat_map(pixel).collect(),
    }
}

fn view(augmentation: &Augmentation, key: u64) -> Vec<u8> {
    let mut square = vec![0; SIDE * SIDE * 3];
    Augmenter::new(augmentation, &preprocessing()).view(image().picture(), key, &mut square);
    square
}

#[test]
fn a_key_decides_the_view_and_each_part_changes_it() {
    let plain = view(&Augmentation::default(), 1);
    let parts = [
        Augmentation {
            random_resized_crop: Some(RandomResizedCrop::default()),
            ..Augmentation::default()
        },
        Augmentation {
            horizontal_flip: 1.0,
            ..Augmentation::default()
        },
        Augmentation {
            color_jitter: Some(ColorJitter {
                hue: 0.3,
                ..ColorJitter::default()
            }),
            ..Augmentation::default()
        },
        Augmentation {
            rand_augment: Some(RandAugment {
                n_ops: 4,
                magnitude: 20,
            }),
            ..Augmentation::default()
        },
        Augmentation {
            random_erasing: 1.0,
            ..Augmentation::default()
        },
    ];
    for part in &parts {
        assert_eq!(view(part, 5), view(part, 5), "{part:?}");
        assert_ne!(view(part, 5), plain, "{part:?}");
        if part.horizontal_flip == 0.0 {
            assert_ne!(view(part, 5), view(part, 6), "{part:?}");
        }
    }
}

#[test]
fn without_a_crop_it_alters_what_the_evaluation_sees() {
    let mut square = vec![0; SIDE * SIDE * 3];
    preprocess_into(image().picture(), &preprocessing(), &mut square);
    assert_eq!(view(&Augmentation::default(), 1), square);
    let flip = Augmentation {
        horizontal_flip: 0.5,
        ..Augmentation::default()
    };
    let augmenter = Augmenter::new(&flip, &preprocessing());
    assert_eq!(augmenter.canvas(), None);
    let flipped = (0..1_000).filter(|&key| {
        let mut altered = square.clone();
        augmenter.view_of_square(key, &mut altered);
        assert_eq!(altered, view(&flip, key));
        altered != square
    });
    assert!((440..560).contains(&flipped.count()));
}

#[test]
fn what_is_erased_is_zero_after_normalisation() {
    let erase = Augmentation {
        random_erasing: 1.0,
        ..Augmentation::default()
    };
    let mean = [124, 116, 104];
    let found = view(&erase, 3);
    let filled = found
        .as_chunks::<3>()
        .0
        .iter()
        .filter(|&&pixel| pixel == mean);
    assert!(filled.count() >= 5);
}
