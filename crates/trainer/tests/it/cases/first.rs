//! The inputs of `make_cases.py`.

use super::{Case, FIRST, Right::*, check};

const SIX_EACH: &[(&str, u64)] = &[("blue", 6), ("red", 6)];
const EIGHT_EACH: &[(&str, u64)] = &[("blue", 8), ("red", 8)];
const CROSSWISE: &[(&str, u64)] = &[("blue", 4), ("red", 8)];
const FROM_TABLE: (&str, &str) = ("labels_from_table", "labels in `label`");
const CASES: &[Case] = &[
    (
        "a1_split_folders_without_classes.zip",
        Refused(
            "no_class_folders",
            &["\"test\", \"train\"", "are splits", "manifest.csv"],
        ),
    ),
    (
        "a2_metadata_csv_in_each_split.zip",
        Warned(&[("blue", 12), ("red", 12)], &[FROM_TABLE]),
    ),
    (
        "a3_doubled_split_folders.zip",
        Classes(&[("blue", 11), ("red", 11)]),
    ),
    (
        "b1_readme_beside_the_folder.zip",
        Warned(CROSSWISE, &[("not_in_manifest", "not name this file")]),
    ),
    ("b2_manifest_in_capitals.zip", Classes(CROSSWISE)),
    ("b3_labels_csv.zip", Warned(SIX_EACH, &[FROM_TABLE])),
    ("c1_semicolons.zip", Classes(SIX_EACH)),
    ("c2_pandas_index.zip", Classes(SIX_EACH)),
    ("c3_space_after_comma.zip", Classes(SIX_EACH)),
    ("c4_composed_and_decomposed.zip", Classes(SIX_EACH)),
    ("c5_json_array.zip", Classes(SIX_EACH)),
    ("c6_backslashes.zip", Classes(SIX_EACH)),
    ("c7_empty_rows_of_excel.zip", Classes(SIX_EACH)),
    ("c9_trailing_comma.zip", Classes(SIX_EACH)),
    ("d1_backslashes.zip", Classes(EIGHT_EACH)),
    (
        "d2_shift_jis.zip",
        Warned(
            &[("赤", 8), ("青い鳥", 8)],
            &[("names_decoded", "Shift_JIS")],
        ),
    ),
    (
        "d3_shift_jis_with_0x5c.zip",
        Warned(
            &[("blue", 8), ("ソフト", 8)],
            &[("names_decoded", "Shift_JIS")],
        ),
    ),
    ("d4_folders_listed_twice.zip", Classes(EIGHT_EACH)),
    ("d5_synology.zip", Classes(EIGHT_EACH)),
    (
        "d6_pax_sparse.tar",
        Refused("unsafe_entry", &["sparse file", "--format=ustar"]),
    ),
    (
        "d7_zips_in_a_zip.zip",
        Refused(
            "no_class_folders",
            &["test1.zip", "archive inside the archive", "unpack"],
        ),
    ),
    (
        "d8_web_page.zip",
        Refused("not_an_archive", &["web page (HTML)"]),
    ),
    ("e1_motion_photos.zip", Classes(&[("blue", 8), ("red", 20)])),
    (
        "e2_formats_by_name.zip",
        Warned(
            EIGHT_EACH,
            &[
                ("not_an_image", "HEIC"),
                ("not_an_image", "TIFF"),
                ("not_an_image", "empty"),
                ("not_an_image", "Git LFS pointer"),
            ],
        ),
    ),
    ("f1_compiled.pth", Weights("squeezenet1_1")),
    ("f2_lightning.ckpt", Weights("squeezenet1_1")),
    ("f3_module.safetensors", Weights("squeezenet1_1")),
    (
        "f4_dinov2_as_published.pth",
        Weights("vit_small_patch14_dinov2"),
    ),
    (
        "f5_torch_0_1_tar.pth",
        NoWeights(
            "squeezenet1_1",
            "unsupported_format",
            &["torch before 0.1.10", "newer torch"],
        ),
    ),
    ("f6_rebuild_tensor_of_0_3.pth", Weights("squeezenet1_1")),
    ("f7_python_2.pth", Weights("squeezenet1_1")),
    ("f8_script_checkpoint.pth", Weights("squeezenet1_1")),
    ("f9_average_only.pth", Weights("squeezenet1_1")),
    ("f10_doubles.safetensors", Weights("squeezenet1_1")),
    (
        "f11_lfs_pointer.safetensors",
        NoWeights(
            "squeezenet1_1",
            "unsupported_format",
            &["Git LFS pointer", "git lfs pull"],
        ),
    ),
    (
        "f12_torchvision_names.pth",
        NoWeights(
            "mobilenetv2_100",
            "missing_tensor",
            &["torchvision", "timm"],
        ),
    ),
    ("f13_head_in_a_sequence.pth", Weights("squeezenet1_1")),
    ("f18_net.pth", Weights("squeezenet1_1")),
    ("f21_counters_of_a_profiler.pth", Weights("squeezenet1_1")),
    ("h1_1200_classes.zip", Many(1_200, 2_400)),
];

#[test]
fn inputs_as_people_send_them_are_read_or_named() {
    check(&FIRST, CASES);
}
