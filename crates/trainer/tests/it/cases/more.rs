//! The inputs of `more_cases.py`.

use super::{Case, MORE, Right::*, Task::*, check};

const SIX_EACH: &[(&str, u64)] = &[("blue", 6), ("red", 6)];
const EIGHT_EACH: &[(&str, u64)] = &[("blue", 8), ("red", 8)];
const NET: &str = "squeezenet1_1";

const CASES: &[Case] = &[
    ("a01_leftovers_of_a_mac.zip", Classes(EIGHT_EACH)),
    ("a02_checkpoints_of_a_notebook.zip", Classes(EIGHT_EACH)),
    (
        "a03_classes_are_numbers.zip",
        Classes(&[("0", 4), ("1", 4), ("10", 4), ("2", 4)]),
    ),
    (
        "a04_test_lacks_a_class.zip",
        Classes(&[("blue", 11), ("green", 8), ("red", 11)]),
    ),
    (
        "a05_empty_class_folder.zip",
        Refused("empty_class", &["green", "remove the folder"]),
    ),
    (
        "a06_one_folder_of_images.zip",
        Refused("one_class", &["images"]),
    ),
    ("a07_leftovers_of_windows.zip", Classes(EIGHT_EACH)),
    (
        "a08_boxes_of_yolo.zip",
        Refused("no_class_folders", &["object detection", "manifest.csv"]),
    ),
    (
        "a09_class_of_text_files.zip",
        Refused("empty_class", &["notes", "none of the 3 files"]),
    ),
    (
        "a10_images_at_the_root.zip",
        Refused("no_class_folders", &["folder", "manifest.csv"]),
    ),
    (
        "b01_one_hot_in_each_split.zip",
        Warned(
            &[("blue", 9), ("red", 9)],
            &[("labels_from_table", "a class each")],
        ),
    ),
    (
        "b02_one_hot_of_several_labels.zip",
        Task(MultiLabelClassification, 12, &["round", "shiny", "square"]),
    ),
    (
        "b03_names_without_ending.zip",
        Warned(
            SIX_EACH,
            &[
                ("labels_from_table", "labels in `breed`"),
                ("not_in_manifest", "not name this file"),
            ],
        ),
    ),
    (
        "b04_absolute_paths.zip",
        Warned(SIX_EACH, &[("labels_from_table", "labels in `cat`")]),
    ),
    (
        "b05_folder_that_is_not_there.zip",
        Warned(SIX_EACH, &[("labels_from_table", "labels in column 2")]),
    ),
    (
        "b06_list_with_spaces.zip",
        Warned(
            SIX_EACH,
            &[
                ("labels_from_table", "labels in column 2"),
                ("not_in_manifest", "not name this file"),
            ],
        ),
    ),
    (
        "b07_pairs_in_json.zip",
        Warned(SIX_EACH, &[("labels_from_table", "labels in column 2")]),
    ),
    (
        "b08_coco_of_one_class_an_image.zip",
        Warned(SIX_EACH, &[("labels_from_table", "labels in `label`")]),
    ),
    (
        "b09_metadata_jsonl.zip",
        Warned(SIX_EACH, &[("labels_from_table", "labels in `label`")]),
    ),
    (
        "b10_workbook_of_labels.zip",
        Refused(
            "invalid_manifest",
            &["labels.xlsx", "save it as CSV", "manifest.csv"],
        ),
    ),
    (
        "b11_table_that_agrees.zip",
        Warned(EIGHT_EACH, &[("outside_class_folder", "left out")]),
    ),
    (
        "b12_table_of_sizes.zip",
        Warned(EIGHT_EACH, &[("outside_class_folder", "left out")]),
    ),
    (
        "b13_table_of_other_images.zip",
        Warned(EIGHT_EACH, &[("outside_class_folder", "left out")]),
    ),
    ("c01_utf_16.zip", Classes(SIX_EACH)),
    ("c02_byte_order_mark.zip", Classes(SIX_EACH)),
    (
        "c03_windows_1252.zip",
        Refused(
            "invalid_manifest",
            &["not UTF-8", "save the manifest as UTF-8"],
        ),
    ),
    ("c04_empty_lines.zip", Classes(SIX_EACH)),
    ("c05_old_mac_lines.zip", Classes(SIX_EACH)),
    ("c06_separator_line_of_excel.zip", Classes(SIX_EACH)),
    ("c07_decimal_commas.zip", Task(Regression, 12, &[])),
    (
        "c08_quoted_fields.zip",
        Classes(&[("blue, bright", 6), ("red, bright", 6)]),
    ),
    ("c09_capital_header.zip", Classes(SIX_EACH)),
    (
        "c10_blank_label.zip",
        Refused("missing_label", &["no label"]),
    ),
    (
        "d01_gbk.zip",
        Warned(
            &[("红色图片", 8), ("蓝色图片", 8)],
            &[("names_decoded", "GBK")],
        ),
    ),
    (
        "d02_big5_with_0x5c.zip",
        Warned(
            &[("尤里的照片", 8), ("陰謀", 8)],
            &[("names_decoded", "Big5")],
        ),
    ),
    (
        "d03_euc_kr.zip",
        Warned(
            &[("빨간색", 8), ("파란색", 8)],
            &[("names_decoded", "EUC-KR")],
        ),
    ),
    (
        "d04_code_page_850.zip",
        Warned(
            &[("größe", 8), ("übung", 8)],
            &[("names_decoded", "code page 850")],
        ),
    ),
    ("d05_unicode_path.zip", Classes(&[("狗", 8), ("猫", 8)])),
    (
        "d06_utf_8_without_flag.zip",
        Classes(&[("кухня", 8), ("санузел", 8)]),
    ),
    (
        "d07_two_files_of_one_path.zip",
        Refused("duplicate_path", &["red/0.png", "two files of this path"]),
    ),
    ("d08_rar.zip", Refused("not_an_archive", &["RAR", "unpack"])),
    ("d09_cut_off.zip", Refused("corrupt_archive", &["cut off"])),
    (
        "d10_with_password.zip",
        Refused("encrypted_archive", &["password"]),
    ),
    ("d11_tar_of_a_mac.tgz", Classes(EIGHT_EACH)),
    (
        "d12_shift_jis.tar",
        Warned(
            &[("ぶどう", 8), ("りんご", 8)],
            &[("names_decoded", "Shift_JIS")],
        ),
    ),
    ("d13_recycle_bins.zip", Classes(EIGHT_EACH)),
    (
        "e01_capital_endings.zip",
        Classes(&[("blue", 9), ("red", 11)]),
    ),
    (
        "e02_wrong_endings.zip",
        Classes(&[("blue", 9), ("red", 10)]),
    ),
    (
        "e03_empty.zip",
        Warned(EIGHT_EACH, &[("not_an_image", "empty")]),
    ),
    (
        "e04_cut_off.zip",
        Warned(EIGHT_EACH, &[("truncated_image", "cut off")]),
    ),
    (
        "e05_png_of_xcode.zip",
        Warned(EIGHT_EACH, &[("unreadable_image", "CgBI")]),
    ),
    (
        "e06_other_formats.zip",
        Warned(
            EIGHT_EACH,
            &[
                ("not_an_image", "AVIF"),
                ("not_an_image", "SVG"),
                ("not_an_image", "PDF"),
                ("not_an_image", "web page"),
            ],
        ),
    ),
    (
        "e07_coarse_luma.zip",
        Warned(EIGHT_EACH, &[("unreadable_image", "coarser")]),
    ),
    ("e08_trailing_zeros.zip", Classes(EIGHT_EACH)),
    ("f01_backbone.pth", Weights(NET)),
    ("f02_two_prefixes.safetensors", Weights(NET)),
    ("f03_numpy_scalar.pth", Weights(NET)),
    ("f04_model_ema.pth", Weights(NET)),
    ("f05_teacher.pth", Weights(NET)),
    ("f06_parameters.pth", Weights(NET)),
    (
        "f07_whole_module.pth",
        NoWeights(NET, "unsupported_format", &["state_dict()"]),
    ),
    (
        "f08_torchscript.pt",
        NoWeights(NET, "unsupported_format", &["TorchScript", "state_dict()"]),
    ),
    ("f09_defaultdict.pth", Weights(NET)),
    (
        "f10_index_of_shards.json",
        NoWeights(NET, "unsupported_format", &["index of weights", "merge"]),
    ),
    (
        "f11_keras.h5",
        NoWeights(NET, "unsupported_format", &["HDF5", "safetensors"]),
    ),
    ("f12_head_of_two_classes.safetensors", Weights(NET)),
    (
        "f13_weights_of_another_network.safetensors",
        NoWeights(
            NET,
            "missing_tensor",
            &["bn1.weight", "not the names of timm's model"],
        ),
    ),
    (
        "f14_web_page.pth",
        NoWeights(NET, "unsupported_format", &["web page"]),
    ),
    (
        "f15_cut_off.pth",
        NoWeights(NET, "unsupported_format", &["cut off"]),
    ),
];

#[test]
fn further_inputs_as_people_send_them_are_read_or_named() {
    check(&MORE, CASES);
}
