use super::*;
use crate::{
    data::image::Bitmap,
    domain::{
        augmentation::{ColorJitter, RandAugment, RandomResizedCrop},
        base_model::Interpolation,
    },
};

const SIDE: usize = 16;

fn preprocessing() -> Preprocessing {
    Preprocessing {
        input_size: SIDE as u32,
        channels: 3,
        crop_fraction: 0.875,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.485, 0.456, 0.406].into(),
        std: vec![0.229, 0.224, 0.225].into(),
    }
}

/// A slope in each channel.
fn image() -> Bitmap {
    let pixel = |place: u32| {
        [
            (place % 40 * 6) as u8,
            (place / 40 * 8) as u8,
            (place % 7 * 30) as u8,
        ]
    };
    Bitmap {
        width: 40,
        height: 30,
        channels: 3,
        pixels: (0..40 * 30).flat_map(pixel).collect(),
    }
}

fn view(augmentation: &Augmentation, key: u64) -> Vec<u8> {
    let mut square = vec![0; SIDE * SIDE * 3];
    Augmenter::new(augmentation, &preprocessing()).view(image().as_view(), key, &mut square);
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
    let (image, input) = (image(), preprocessing());
    let target = Target::square((image.width, image.height), &input);
    resize(image.as_view(), target, input.interpolation, &mut square);
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
fn what_is_erased_is_zero_after_normalization() {
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

/// `image` in gray, or with an alpha that rises from left to right.
fn in_channels(channels: u32) -> Bitmap {
    let image = image();
    let (pixels, _) = image.pixels.as_chunks::<3>();
    let of = |(place, &[r, g, b]): (usize, &[u8; 3])| match channels {
        1 => vec![r],
        _ => vec![r, g, b, (place % 40 * 6) as u8],
    };
    Bitmap {
        channels,
        pixels: pixels.iter().enumerate().flat_map(of).collect(),
        ..image
    }
}

fn square(augmentation: &Augmentation, channels: u32, key: u64) -> Vec<u8> {
    let preprocessing = Preprocessing {
        channels,
        mean: vec![0.5, 0.25, 0.75, 1.0][..channels as usize]
            .to_vec()
            .into(),
        std: vec![0.2; channels as usize].into(),
        ..preprocessing()
    };
    let mut square = vec![0; preprocessing.square_bytes()];
    let image = in_channels(channels);
    Augmenter::new(augmentation, &preprocessing).view(image.as_view(), key, &mut square);
    square
}

/// Colors of a gray image do not turn, those that are no colors do not change; what is left
/// changes.
#[test]
fn gray_and_alpha_are_altered_by_what_is_about_them() {
    let turned = Augmentation {
        color_jitter: Some(ColorJitter {
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.9,
            hue: 0.4,
        }),
        ..Augmentation::default()
    };
    let brighter = Augmentation {
        color_jitter: Some(ColorJitter {
            brightness: 0.5,
            contrast: 0.5,
            saturation: 0.0,
            hue: 0.0,
        }),
        ..Augmentation::default()
    };
    let plain = Augmentation::default();
    assert_eq!(square(&turned, 1, 5), square(&plain, 1, 5));
    assert_ne!(square(&brighter, 1, 5), square(&plain, 1, 5));
    let alpha = |square: &[u8]| -> Vec<u8> {
        let (pixels, _) = square.as_chunks::<4>();
        pixels.iter().map(|pixel| pixel[3]).collect()
    };
    for colors in [&turned, &brighter] {
        let (found, plain) = (square(colors, 4, 5), square(&plain, 4, 5));
        assert_ne!(found, plain);
        assert_eq!(alpha(&found), alpha(&plain));
    }
    // Alpha moves with its pixel, and what is erased has its mean, which is opaque.
    let flip = Augmentation {
        horizontal_flip: 1.0,
        ..Augmentation::default()
    };
    let mut expected = alpha(&square(&plain, 4, 5));
    expected.chunks_exact_mut(SIDE).for_each(<[u8]>::reverse);
    assert_eq!(alpha(&square(&flip, 4, 5)), expected);
    let erase = Augmentation {
        random_erasing: 1.0,
        ..Augmentation::default()
    };
    let erased = square(&erase, 4, 3);
    let (pixels, _) = erased.as_chunks::<4>();
    let filled = pixels.iter().filter(|&&pixel| pixel == [128, 64, 191, 255]);
    assert!(filled.count() >= 5);
}

/// An image of three equal channels is changed as the gray one that it is.
#[test]
fn gray_is_altered_as_its_image_in_three_channels() {
    let all = Augmentation {
        random_resized_crop: Some(RandomResizedCrop::default()),
        horizontal_flip: 0.5,
        rand_augment: Some(RandAugment {
            n_ops: 1,
            magnitude: 15,
        }),
        random_erasing: 0.5,
        ..Augmentation::default()
    };
    let preprocessing = |channels: usize| Preprocessing {
        channels: channels as u32,
        mean: vec![0.5; channels].into(),
        std: vec![0.2; channels].into(),
        ..preprocessing()
    };
    let gray = in_channels(1);
    let three = Bitmap {
        channels: 3,
        pixels: gray.pixels.iter().flat_map(|&value| [value; 3]).collect(),
        ..gray.clone()
    };
    for key in 0..200 {
        let mut small = vec![0; SIDE * SIDE];
        Augmenter::new(&all, &preprocessing(1)).view(gray.as_view(), key, &mut small);
        let mut large = vec![0; SIDE * SIDE * 3];
        Augmenter::new(&all, &preprocessing(3)).view(three.as_view(), key, &mut large);
        let (large, _) = large.as_chunks::<3>();
        // Shares of red, green and blue in torchvision's gray add up to 0.9999: a step less now and
        // then.
        let apart = |(&one, other): (&u8, &[u8; 3])| one.abs_diff(other[0]);
        let worst = small.iter().zip(large).map(apart).max().unwrap();
        assert!(worst <= 2, "{worst} apart for key {key}");
    }
}
