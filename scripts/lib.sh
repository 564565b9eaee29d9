# What the set-up scripts share. Sourced, not run.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 ||
        fail "cargo-nextest is missing, and the set-up does not bring it: cargo install --locked cargo-nextest"
}

# fetch_wheel FOLDER PACKAGE==VERSION SHA256: one wheel by pip, its hash checked; nothing when it is
# there. The tags are fixed, so that any Python 3 brings the same file.
fetch_wheel() {
    local folder=$1 package=$2 sha256=$3 requirements
    requirements=$(mktemp)
    printf '%s --hash=sha256:%s\n' "$package" "$sha256" >"$requirements"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes \
        --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform any \
        --dest "$folder" --requirement "$requirements" || fail "cannot fetch $package"
    rm -f "$requirements"
}

# apt_install PACKAGE...: Debian packages, as root. Lists that cannot be renewed may still be good.
apt_install() {
    [ "$(id -u)" = 0 ] || fail "run this first: sudo apt-get install --no-install-recommends $*"
    say "installing $*"
    as_root apt-get update -qq -o Acquire::Retries=3 || say "apt-get update failed; going on with what it has"
    as_root apt-get install -y -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"
}

# wheel_name PACKAGE==VERSION: how the wheel's file name begins.
wheel_name() { local name=${1%%==*}; printf '%s-%s' "${name//-/_}" "${1##*==}"; }

# fetch_deb FOLDER PACKAGE SHA256: one Debian package, its hash checked; nothing when it is there.
fetch_deb() {
    local folder=$1 package=$2 sha256=$3
    command -v apt-get >/dev/null || fail "$package comes by apt-get, which is not here: run this on Debian"
    if ! ls "$folder/$package"_*.deb >/dev/null 2>&1; then
        apt-cache show "$package" >/dev/null 2>&1 || as_root apt-get update -qq
        (cd "$folder" && apt-get download -qq "$package") || fail "cannot fetch $package"
    fi
    echo "$sha256  $(ls "$folder/$package"_*.deb)" | sha256sum --quiet --check || fail "$package is not the one expected"
}

# bench_deb PACKAGE SHA256: one Debian package, unpacked beside the demo's data under its name,
# without `dataset-` before it; nothing when it is there.
bench_deb() {
    local cache=${REHEAD_CACHE:-$HOME/.cache/rehead} package=$1
    local folder=$cache/demo/${package#dataset-}
    [ -d "$folder" ] && return
    say "fetching $package"
    fetch_deb "$cache/downloads" "$package" "$2"
    rm -rf "$folder.part"
    dpkg-deb -x "$cache/downloads/${package}"_*.deb "$folder.part"
    mv "$folder.part" "$folder"
}

# unpack_zip ARCHIVE FOLDER [PATTERN...]: all of it, or what matches and no `!PATTERN` takes out;
# whole or not at all.
unpack_zip() {
    local archive=$1 folder=$2
    shift 2
    rm -rf "$folder.part"
    python3 -c '
import fnmatch, sys, zipfile
archive, folder, patterns = sys.argv[1], sys.argv[2], sys.argv[3:]
with zipfile.ZipFile(archive) as z:
    matches = lambda name, patterns: any(fnmatch.fnmatch(name, p) for p in patterns)
    wanted = [p for p in patterns if p[0] != "!"] or ["*"]
    unwanted = [p[1:] for p in patterns if p[0] == "!"]
    z.extractall(folder, [n for n in z.namelist() if matches(n, wanted) and not matches(n, unwanted)])
' "$archive" "$folder.part" "$@"
    mv "$folder.part" "$folder"
}

# as_root COMMAND...: runs it when we are root; otherwise says what to run.
as_root() {
    [ "$(id -u)" = 0 ] || fail "run this first: sudo $*"
    "$@"
}
