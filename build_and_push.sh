#!/usr/bin/env bash
# Builds the k-means image and pushes it to Amazon ECR; `./build_and_push.sh --help` tells how.
#
# Standard output carries the result only (with --dry-run: the commands), all the rest goes to standard error, so that
# "$(./build_and_push.sh | tail -n 1)" is the image of a training job.
# macOS has bash 3.2: no ${x@Q}, no mapfile, and an empty array counts as unset there.
set -euo pipefail

usage() {
    cat <<'END'
Usage: ./build_and_push.sh [options] [REPOSITORY]

Builds the k-means image and pushes it to Amazon ECR, to REPOSITORY (default: kmeans), created if it is missing.

  --region R       AWS region (default: AWS_REGION, AWS_DEFAULT_REGION, then the region of the AWS profile)
  --profile P      AWS profile; keys in the environment are then left aside
  --tag T          one more tag, besides the version, the git revision and latest
  --latest-only    leave out the tags of version and revision
  --base-image I   image to build on (default: the Dockerfile's)
  --platform P     the one platform of the image (default: linux/amd64, which most SageMaker instances run)
  --image NAME     name of the local image (default: kmeans:latest)
  --skip-build     push the local image as it is; its labels tell version and revision
  --sbom FILE      write to FILE what is in the image: packages, versions and licenses, as CycloneDX JSON
  --dry-run        change nothing: print the commands, ready to be pasted into bash
  -h, --help       print this text

KMEANS_REGISTRY in the environment names another host[:port] to push to. If it is one of ECR (FIPS, dual-stack), or if
AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_ECR names a stand-in for AWS, repository and log-in are seen to as usual. For any
other host AWS is not asked for anything: run `docker login` first.
The tags of version and revision are pushed only if the git tree has no changes. Only latest ever moves: if another
image has one of the other tags, nothing is pushed. The last line printed is the image to use in a training job. Exit
status: 0 done, 1 failed, 2 wrong usage.
END
}

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'error: %s\n' "$*" >&2; exit 2; }
quoted() { local words; words=$(printf '%q ' "$@"); printf '%s' "${words% }"; }

# In a dry run the commands are the output, and notes are comments among them.
note() { if [[ $dry_run == yes ]]; then printf '# %s\n' "$*"; else printf '%s\n' "$*" >&2; fi; }
announce() { if [[ $dry_run == yes ]]; then printf '%s\n' "$1"; else printf '+ %s\n' "$1" >&2; fi; }
run() { announce "$(quoted "$@")"; [[ $dry_run == yes ]] || "$@" >&2; }

absent() {  # VARIABLE PLACEHOLDER MESSAGE: an error, but a dry run goes on with the placeholder.
    [[ $dry_run == yes ]] || fail "$3"
    note "$3 In this dry run, $2 stands for it."
    printf -v "$1" '%s' "$2"
}

reason() {  # What the last command that wrote to $errors had to say, in one line; $1 if it was silent.
    local words
    words=$(tr -s '[:space:]' ' ' <"$errors")
    words=${words# } words=${words% }
    printf '%s' "${words:-${1:-no reason was given}}"
}

# LC_ALL=C: in other locales a-z may hold letters that ECR refuses.
matches() { local LC_ALL=C; [[ $1 =~ $2 ]]; }
tag_rule='^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$'
repository_rule='^([a-z0-9]+([._-][a-z0-9]+)*/)*[a-z0-9]+([._-][a-z0-9]+)*$'
host_rule='^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?$'
ecr_rule='^[0-9]{12}\.dkr[.-]ecr(-fips)?\.'

parse_arguments() {
    repository=kmeans region='' profile='' extra_tag='' base_image='' platform='' image=kmeans:latest
    sbom='' latest_only=no skip_build=no dry_run=no
    local given=no name
    while (($#)); do
        case $1 in
            --region | --profile | --tag | --base-image | --platform | --image | --sbom)
                [[ -n ${2:-} && $2 != -* ]] || misuse "$1 needs a value."
                name=${1#--}
                [[ $name != tag ]] || name=extra_tag
                printf -v "${name//-/_}" '%s' "$2"
                shift ;;
            --latest-only) latest_only=yes ;;
            --skip-build) skip_build=yes ;;
            --dry-run) dry_run=yes ;;
            -h | --help) usage; exit 0 ;;
            -*) misuse "Unknown option $(quoted "$1"): see --help." ;;
            *)
                [[ $given == no ]] || misuse "Only one repository can be given: $(quoted "$1") is the second."
                given=yes repository=$1 ;;
        esac
        shift
    done
    if ! matches "$repository" "$repository_rule" || ((${#repository} < 2 || ${#repository} > 256)); then
        misuse "$(quoted "$repository") is no repository name: use 2 to 256 of a-z, 0-9, with single . _ - / between."
    fi
    [[ -z $extra_tag ]] || matches "$extra_tag" "$tag_rule" ||
        misuse "$(quoted "$extra_tag") is no tag: use up to 128 of A-Z, a-z, 0-9, _ . -, with neither . nor - first."
    [[ $platform != *,* ]] ||
        misuse "$(quoted "$platform") is more than one platform: SageMaker takes no image lists, give them one by one."
    [[ -z $sbom || $sbom == /* ]] || sbom=$PWD/$sbom
    [[ -z ${KMEANS_REGISTRY:-} ]] || matches "$KMEANS_REGISTRY" "$host_rule" ||
        misuse "KMEANS_REGISTRY is $(quoted "$KMEANS_REGISTRY"), which is no host: give host or host:port."
}

check_docker() {  # The engine's architecture counts, not this machine's: the engine may be elsewhere.
    builder=(docker build) engine=''
    local here
    here="$(uname -m) 1.41"  # architecture and API
    command -v docker >/dev/null || absent engine "$here" "docker is not on the PATH: install Docker first."
    [[ -n $engine ]] || engine=$(docker version --format '{{.Server.Arch}} {{.Server.APIVersion}}' 2>"$errors") ||
        absent engine "$here" "The Docker engine does not answer ($(reason)): start it, or check DOCKER_HOST."
    # SageMaker's hosting refuses OCI manifests, which containerd's image store has by default, and the image lists
    # that attestations make (github.com/aws/amazon-sagemaker-feedback/issues/180). type=docker also loads what a
    # builder in a container of its own has made. The classic builder makes Docker's format anyway.
    if docker buildx version >/dev/null 2>&1; then
        builder=(env BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker buildx build --output 'type=docker,oci-mediatypes=false')
    fi
}

architecture_of() {  # The architecture in linux/arm64/v8 or in the words of uname, as Docker names it.
    local name=${1#*/}
    name=${name%%/*}
    case $name in x86_64) name=amd64 ;; aarch64) name=arm64 ;; esac
    printf '%s' "$name"
}

choose_platform() {
    local architecture=${engine%% *} recent=' 1\.(4[1-9]|[5-9][0-9])$'
    [[ -z $platform && $architecture != amd64 && $architecture != x86_64 ]] || return 0
    # API 1.41 is Docker 20.10, the first whose classic builder takes --platform without experimental features.
    [[ ${builder[0]} == env || $engine =~ $recent ]] ||
        fail "The Docker engine runs on $architecture and cannot build for linux/amd64:" \
            "install buildx, or pass --platform linux/$architecture for instances of that kind."
    platform=linux/amd64
}

find_region() {
    region=${region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-}}}
    [[ -n $region ]] || region=$(aws configure get region 2>"$errors") || region=''
    [[ -n $region ]] || absent region REGION \
        "No AWS region is set ($(reason 'nor does aws know one')): give --region, AWS_REGION or run 'aws configure'."
}

find_registry() {
    registry=${KMEANS_REGISTRY:-} ecr=yes
    if [[ -n $registry && -z ${AWS_ENDPOINT_URL:-}${AWS_ENDPOINT_URL_ECR:-} && ! $registry =~ $ecr_rule ]]; then
        ecr=no  # AWS's password is nobody else's business.
        return
    fi
    command -v aws >/dev/null || [[ $dry_run == yes ]] ||
        fail "aws, the AWS command line, is not on the PATH: install it first."
    find_region
    local identity account='' arn=arn:aws:
    [[ $region != cn-* ]] || arn=arn:aws-cn:
    identity=$(aws sts get-caller-identity --query '[Account, Arn]' --output text --region "$region" 2>"$errors") ||
        absent account ACCOUNT "AWS does not tell the account ($(reason)): log in, or check --profile and network."
    if [[ -z $account ]]; then
        account=${identity%%[[:space:]]*} arn=${identity##*[[:space:]]}
        matches "$account" '^[0-9]{12}$' || fail "aws gave $(quoted "$identity") for an account: check your aws."
    fi
    [[ -z $registry ]] || return 0
    case $arn in
        arn:aws:* | arn:aws-us-gov:*) registry=$account.dkr.ecr.$region.amazonaws.com ;;
        arn:aws-cn:*) registry=$account.dkr.ecr.$region.amazonaws.com.cn ;;
        *) fail "The registry's domain in the partition of $arn is not known: set KMEANS_REGISTRY to the host." ;;
    esac
}

describe_tree() {
    clean=yes created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' kmeans/__init__.py)
    matches "$version" "$tag_rule" ||
        fail "The version in kmeans/__init__.py, $(quoted "$version"), cannot be a tag: correct it."
    # ls-files: a copy inside somebody else's checkout does not have that one's revision.
    if ! git ls-files --error-unmatch container/Dockerfile >/dev/null 2>"$errors" ||
        ! revision=$(git rev-parse --short=12 HEAD 2>"$errors"); then
        revision=unknown
        note "There is no git revision ($(reason)): its tag is left out."
        [[ ! -e .git ]] || clean=unknown
    elif [[ -n $(git --no-optional-locks status --porcelain -- . 2>&1) ]]; then
        revision=$revision-dirty clean=no
    else  # The commit's date: the same commit gives the same labels.
        created=$(TZ=UTC git -c log.showSignature=false log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
    fi
}

read_labels() {  # The tree may have moved on since the image was built; its labels have not.
    local labels format='{{index .Config.Labels "org.opencontainers.image.version"}}'
    format+=' {{index .Config.Labels "org.opencontainers.image.revision"}}'
    labels=$(docker image inspect --format "$format" "$image" 2>"$errors") || absent labels 'unknown unknown' \
        "There is no local image $image ($(reason)): build it first or name another with --image."
    clean=yes version=${labels%% *} revision=${labels##* }
    [[ $revision != *-dirty ]] || clean=no
}

check_platform() {  # A build chooses its platform; `make image` on an Apple machine makes an image for arm64.
    local wanted=${platform:-linux/amd64} found
    # read_labels has already reported an image that is missing.
    found=$(docker image inspect --format '{{.Os}}/{{.Architecture}}' "$image" 2>"$errors") || return 0
    [[ $(architecture_of "$found") == "$(architecture_of "$wanted")" ]] ||
        fail "The image $image is for $found and cannot run on $wanted: leave out --skip-build to build it again," \
            "or pass --platform $found for instances of that kind."
}

choose_tags() {  # latest comes last: it moves only when all the others are in place.
    local tag fixed=("$revision" "$version")
    if [[ $latest_only == yes ]]; then
        fixed=(unknown)
    elif [[ $clean != yes ]]; then
        note "The tree has changes that are in no commit, or git cannot tell:" \
            "the tags of version $version and revision $revision are left out."
        fixed=(unknown)
    fi
    tags=()
    for tag in "${fixed[@]}" "$extra_tag" latest; do
        [[ $tag != unknown && " ${tags[*]:-} " != *" $tag "* ]] || continue
        ! matches "$tag" "$tag_rule" || tags+=("$tag")
    done
    note "Tags: ${tags[*]}"
}

build() {
    local command=("${builder[@]}" -f container/Dockerfile --build-arg "VERSION=$version"
        --build-arg "REVISION=$revision" --build-arg "CREATED=$created")
    [[ -z $base_image ]] || command+=(--build-arg "BASE_IMAGE=$base_image")
    [[ -z $platform ]] || command+=(--platform "$platform")
    run "${command[@]}" -t "$image" . || fail "The build failed, docker's reason is above: correct it and try again."
}

start_image() {  # A program with the wrong line ends or for another machine fails here, and not in an account.
    local command=(docker run --rm --network none) architecture=${engine%% *}
    if [[ -n $platform && $(architecture_of "$platform") != "$(architecture_of "$architecture")" ]]; then
        note "The image for $platform is not started: the Docker engine runs on $architecture."
        return
    fi
    [[ -z $platform ]] || command+=(--platform "$platform")
    announce "$(quoted "${command[@]}" "$image" --help) >/dev/null"
    [[ $dry_run == yes ]] || "${command[@]}" "$image" --help >/dev/null 2>"$errors" ||
        fail "The image $image does not start ($(reason)): correct its Dockerfile or base image and build it again."
}

identify() {
    image_id="\$(docker image inspect --format '{{.Id}}' $(quoted "$image"))"
    [[ $dry_run == yes ]] || image_id=$(docker image inspect --format '{{.Id}}' "$image" 2>"$errors") ||
        fail "There is no local image $image ($(reason)): build it first or name another with --image."
}

write_sbom() {
    local command=(docker run --rm --interactive --network none --entrypoint python3)
    [[ -z $platform ]] || command+=(--platform "$platform")
    announce "$(quoted "${command[@]}" "$image" -) \"$image_id\" <container/sbom.py >$(quoted "$sbom")"
    [[ $dry_run == no ]] || return 0
    if ! "${command[@]}" "$image" - "$image_id" <container/sbom.py 2>"$errors" >"$sbom.part" ||
        ! mv -f "$sbom.part" "$sbom" 2>"$errors"; then
        rm -f "$sbom.part"
        fail "The SBOM cannot be written to $sbom ($(reason)): correct that, or leave out --sbom."
    fi
}

ensure_repository() {
    local look=(aws ecr describe-repositories --repository-names "$repository" --region "$region" --output text)
    local create=(aws ecr create-repository --repository-name "$repository" --region "$region" --output text
        --image-scanning-configuration scanOnPush=true --image-tag-mutability)
    # An aws older than July 2025 does not know of tags that cannot move while latest can.
    local guarded=("${create[@]}" IMMUTABLE_WITH_EXCLUSION
        --image-tag-mutability-exclusion-filters 'filterType=WILDCARD,filter=latest')
    create+=(MUTABLE)
    announce "$(quoted "${look[@]}") || $(quoted "${guarded[@]}") || $(quoted "${create[@]}")"
    if [[ $dry_run == yes ]] || "${look[@]}" >/dev/null 2>"$errors"; then return; fi
    [[ $(<"$errors") == *RepositoryNotFoundException* ]] ||
        fail "AWS does not show the repository $repository ($(reason)): ask for permission ecr:DescribeRepositories."
    if "${guarded[@]}" >/dev/null 2>"$errors"; then return; fi
    note "AWS does not create a repository whose tags cannot move ($(reason)): trying one whose tags can."
    "${create[@]}" >/dev/null 2>"$errors" ||
        fail "AWS does not create the repository $repository ($(reason)): ask for permission ecr:CreateRepository."
}

log_in() {  # A pipe: the password is on no command line, in no file, and not in the output of bash -x.
    local get=(aws ecr get-login-password --region "$region")
    local use=(docker login --username AWS --password-stdin "$registry")
    announce "$(quoted "${get[@]}") | $(quoted "${use[@]}")"
    [[ $dry_run == no ]] || return 0
    : >"$errors"
    "${get[@]}" 2>>"$errors" | "${use[@]}" >&2 2>>"$errors" ||
        fail "The log-in to $registry failed ($(reason)): check network and permission ecr:GetAuthorizationToken."
    cat "$errors" >&2  # docker warns here of where it keeps passwords
}

find_present_tags() {  # Before anything is pushed. The engine asks, as it reaches whatever it can push to.
    local tag uri pull=(docker pull --quiet)
    present=' '
    [[ $dry_run == no ]] || return 0
    [[ -z $platform ]] || pull+=(--platform "$platform")
    for tag in "${tags[@]}"; do
        [[ $tag != latest ]] || continue
        uri=$registry/$repository:$tag
        announce "$(quoted "${pull[@]}" "$uri")"
        if "${pull[@]}" "$uri" >/dev/null 2>"$errors"; then
            [[ $(docker image inspect --format '{{.Id}}' "$uri" 2>"$errors") == "$image_id" ]] ||
                fail "$uri is there already with another image, and no tag but latest moves: commit your changes and" \
                    "raise the version in kmeans/__init__.py, or pass --latest-only (and --tag with a new name)."
            present+="$tag "
        else
            case $(reason) in
                *'manifest unknown'* | *'name unknown'* | *'not found' | *'repository does not exist'*) ;;
                *) fail "The registry does not tell what $uri is ($(reason)): check network and permissions." ;;
            esac
        fi
    done
}

push() {
    local tag uri
    uris=()
    for tag in "${tags[@]}"; do
        uri=$registry/$repository:$tag
        uris+=("$uri")
        local name=(docker tag "$image" "$uri") send=(docker push "$uri")
        if [[ $present == *" $tag "* ]]; then
            note "$uri is there already with this image."
            continue
        elif [[ $dry_run == yes && $tag != latest ]]; then
            announce "docker pull --quiet $(quoted "$uri") || { $(quoted "${name[@]}") && $(quoted "${send[@]}"); }"
            continue
        fi
        run "${name[@]}" || fail "docker does not name $image $uri, its reason is above: build the image first."
        announce "$(quoted "${send[@]}")"
        [[ $dry_run == yes ]] || "${send[@]}" 2>"$errors" | tee "$pushed" >&2 ||
            fail "The push of $uri failed ($(reason)): check network and permissions, then go on with --skip-build."
    done
}

report() {
    local digest
    digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/@\1/p' "$pushed")
    [[ -n $digest ]] || note "docker push told no digest: latest is named instead, which the next push moves."
    printf '%s\n' "${uris[@]}" "$registry/$repository${digest:-:latest}"
}

main() {
    parse_arguments "$@"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    errors=$scratch/errors pushed=$scratch/pushed
    cd -- "$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
    announce "$(quoted cd "$PWD")"
    if [[ -n $profile ]]; then  # Keys in the environment would win over AWS_PROFILE.
        local keys=(AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN)
        announce "unset ${keys[*]}; $(quoted export AWS_PROFILE="$profile")"
        unset "${keys[@]}"
        export AWS_PROFILE=$profile
    fi
    check_docker
    find_registry
    if [[ $skip_build == yes ]]; then read_labels; check_platform; else choose_platform; describe_tree; fi
    choose_tags
    [[ $skip_build == yes ]] || { build; start_image; }
    identify
    [[ -z $sbom ]] || write_sbom
    if [[ $ecr == yes ]]; then ensure_repository; log_in; fi
    find_present_tags
    push
    [[ $dry_run == yes ]] || report
}

main "$@"
