#!/usr/bin/env bash
# A real kube-apiserver (1.20) with etcd and controllers on this machine, for `make test-clusters` and `make bench`.
#
#   tests/real/cluster.sh start    builds it from Debian's source package (bookworm; some minutes, once), starts it
#   tests/real/cluster.sh stop
#
# Needs root for apt-get. Everything is below .real/: its kubeconfig is .real/run/kubeconfig.
set -euo pipefail
top="$(cd "$(dirname "$0")/../.." && pwd -P)"
real="$top/.real"
source="$real/go/src/k8s.io/kubernetes"
debian="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
port="${REAL_PORT:-16443}"
etcd_port="${REAL_ETCD_PORT:-23790}"

build() {
    [ -x "$real/bin/kube-apiserver" ] && [ -x "$real/bin/kube-controller-manager" ] && return
    # The reflect2 that 1.20 came with crashes with Go since 1.18.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq golang-go etcd-server openssl golang-github-modern-go-reflect2-dev
    mkdir -p "$real/apt/lists/partial" "$real/bin" "$real/source" "$(dirname "$source")"
    printf 'Types: deb-src\nURIs: %s\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
        "$debian" >"$real/apt/debian.sources"
    local options=(-o Dir::Etc::sourceparts=/dev/null -o "Dir::Etc::sourcelist=$real/apt/debian.sources" -o "Dir::State::lists=$real/apt/lists")
    apt-get "${options[@]}" update -qq
    (cd "$real/source" && apt-get "${options[@]}" source -qq --download-only kubernetes)
    rm -rf "$source"
    mkdir -p "$source"
    tar xzf "$real"/source/kubernetes_*.orig.tar.gz -C "$source" --strip-components 1
    local reflect2="$source/vendor/github.com/modern-go/reflect2"
    rm -rf "${reflect2:?}"/*
    cp /usr/share/gocode/src/github.com/modern-go/reflect2/* "$reflect2"
    cd "$source"
    export GOPATH="$real/go" GO111MODULE=off CGO_ENABLED=0
    go build -o "$real/bin/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local packages
    packages="$(grep -rl '+k8s:openapi-gen=' --include=*.go --exclude-dir=third_party --exclude-dir=testdata . |
        grep -v '^./vendor/k8s.io/kube-openapi\|code-generator\|sample-\|_test.go\|_examples' | xargs -n1 dirname | sort -u |
        sed 's|^\./staging/src/|k8s.io/kubernetes/vendor/|; s|^\./vendor/|k8s.io/kubernetes/vendor/|; s|^\./|k8s.io/kubernetes/|' |
        sort -u | paste -sd,)"
    "$real/bin/openapi-gen" --go-header-file hack/boilerplate/boilerplate.generatego.txt -O zz_generated.openapi \
        -p k8s.io/kubernetes/pkg/generated/openapi -r "$real/violations" -i "$packages" --output-base "$GOPATH/src" 2>/dev/null
    # Both packages, as hack/lib/version.sh: /version is what the aggregator finds in client-go's.
    local package flags=""
    for package in k8s.io/kubernetes/vendor/k8s.io/{client-go/pkg,component-base}/version; do
        flags+=" -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20"
    done
    for program in kube-apiserver kube-controller-manager; do
        go build -o "$real/bin/$program" -ldflags "$flags" "k8s.io/kubernetes/cmd/$program"
    done
}

certificate() { # name, subject
    openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 30 \
        -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost') 2>/dev/null
}

start() {
    build
    stop
    rm -rf "$real/run"
    mkdir -p "$real/run"
    cd "$real/run"
    openssl genrsa -out accounts.key 2048 2>/dev/null
    openssl rsa -in accounts.key -pubout -out accounts.pub 2>/dev/null
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=ca 2>/dev/null
    certificate server /CN=kube-apiserver
    certificate admin /O=system:masters/CN=admin
    cat >kubeconfig <<K
apiVersion: v1
kind: Config
clusters: [{name: real, cluster: {server: "https://127.0.0.1:$port", certificate-authority: ca.crt}}]
users: [{name: admin, user: {client-certificate: admin.crt, client-key: admin.key}}]
contexts: [{name: real, context: {cluster: real, user: admin}}]
current-context: real
K
    local peers="http://127.0.0.1:$((etcd_port + 10))"
    setsid etcd --data-dir etcd --listen-client-urls "http://127.0.0.1:$etcd_port" \
        --advertise-client-urls "http://127.0.0.1:$etcd_port" --listen-peer-urls "$peers" \
        --initial-advertise-peer-urls "$peers" --initial-cluster "default=$peers" --unsafe-no-fsync >etcd.log 2>&1 &
    echo $! >pids
    setsid "$real/bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd_port" --secure-port "$port" \
        --bind-address 127.0.0.1 --insecure-port 0 --tls-cert-file server.crt --tls-private-key-file server.key \
        --client-ca-file ca.crt --service-account-key-file accounts.pub --service-account-signing-key-file accounts.key \
        --service-account-issuer https://kubernetes.default.svc --service-cluster-ip-range 10.0.0.0/16 \
        --authorization-mode Node,RBAC --disable-admission-plugins ServiceAccount --allow-privileged >apiserver.log 2>&1 &
    echo $! >>pids
    setsid "$real/bin/kube-controller-manager" --kubeconfig kubeconfig --service-account-private-key-file accounts.key \
        --controllers '*,-nodeipam' --leader-elect=false --secure-port 0 >controllers.log 2>&1 &
    echo $! >>pids
    local ask=(curl -sf --cacert ca.crt --cert admin.crt --key admin.key)
    for _ in $(seq 120); do
        if "${ask[@]}" "https://127.0.0.1:$port/readyz" >/dev/null; then
            # A table of nodes needs one; nothing runs on it.
            "${ask[@]}" "https://127.0.0.1:$port/api/v1/nodes" -H 'Content-Type: application/json' \
                -d '{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "node"}}' >/dev/null
            echo "KUBECONFIG=$real/run/kubeconfig"
            return
        fi
        sleep 0.5
    done
    echo "the API server does not become ready; see $real/run/apiserver.log" >&2
    exit 1
}

# Only what was started in this directory: in a copy of it, or later, other processes have these ids.
stop() {
    local pid
    [ -f "$real/run/pids" ] || return 0
    while read -r pid; do
        if [ "$(readlink "/proc/$pid/cwd")" = "$real/run" ]; then
            kill "$pid"
        fi
    done <"$real/run/pids"
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) echo "tests/real/cluster.sh start|stop" >&2 && exit 2 ;;
esac
