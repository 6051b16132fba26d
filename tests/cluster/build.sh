#!/usr/bin/env bash
# Builds the Go programs of the cluster tests into folders outside the repository, each once, and prints the folders. Parts, in any number:
#   api    kube-apiserver, kubectl, etcd: four minutes on two cores. With KUBEBUILDER_ASSETS set nothing is built and that folder is printed.
#   node   kubelet, kube-controller-manager, kube-scheduler, kube-proxy: two minutes and a half after `api`.
#   helm   helm: two minutes.
#   dns    CoreDNS with the plugins that a cluster needs: a minute and a half of work.
#   definitions  the CustomResourceDefinitions of others: those that the chart (cert-manager) and pages of the documentation (Istio, the
#                Gateway API, Envoy Gateway) write objects of.
# Without a part: api. Versions come from go.mod, Helm's and those of the definitions from here. Kubernetes' programs are not optimised (-N -l): they are built in half
# the time and start as fast.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/hopgate"
version="$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$here/go.mod")"
helm_version=v4.3.1
istio_version=v1.31.1
envoy_gateway_version=v1.9.0
cert_manager_version=v1.20.0
gateway_api_version=v1.6.1 # the one that Envoy Gateway's own go.mod names
dns_version="$(awk '$2 == "github.com/coredns/coredns" { print $3 } $1 == "github.com/coredns/coredns" { print $2 }' "$here/dns/go.mod")"
export CGO_ENABLED=0 GOGC="${GOGC:-400}" GOWORK=off

kubernetes() { # kubernetes FOLDER PROGRAM...
	local folder="$1" component=k8s.io/component-base/version major minor
	shift
	IFS=. read -r major minor _ <<<"${version#v}"
	local stamp="-X $component.gitVersion=$version -X $component.gitMajor=$major -X $component.gitMinor=$minor -X $component.gitTreeState=clean \
-X $component.gitCommit=0000000000000000000000000000000000000000 -X $component.buildDate=2026-01-01T00:00:00Z"
	GOFLAGS='-buildvcs=false -mod=readonly' nice -n 19 go build -C "$here" -trimpath -gcflags 'all=-N -l' -ldflags "-s -w $stamp" -o "$folder/" \
		"${@/#/k8s.io/kubernetes/cmd/}"
}

module() { # module PATH@VERSION: where its files are
	go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

definitions() { # definitions FOLDER
	local istio gateway_api envoy_gateway cert_manager name
	istio="$(module "istio.io/api@$istio_version")"
	gateway_api="$(module "sigs.k8s.io/gateway-api@$gateway_api_version")"
	envoy_gateway="$(module "github.com/envoyproxy/gateway@$envoy_gateway_version")"
	cert_manager="$(module "github.com/cert-manager/cert-manager@$cert_manager_version")"
	install -m 644 "$istio/kubernetes/customresourcedefinitions.gen.yaml" "$1/istio.yaml"
	install -m 644 "$cert_manager/deploy/crds/cert-manager.io_certificates.yaml" "$1/"
	for name in backendtlspolicies gatewayclasses gateways httproutes referencegrants; do
		install -m 644 "$gateway_api/config/crd/standard/gateway.networking.k8s.io_$name.yaml" "$1/"
	done
	for name in clienttrafficpolicies envoypatchpolicies securitypolicies; do
		install -m 644 "$envoy_gateway/charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_$name.yaml" "$1/"
	done
}

build() { # build PART FOLDER
	case "$1" in
	api)
		kubernetes "$2" kube-apiserver kubectl
		GOFLAGS='-buildvcs=false -mod=readonly' nice -n 19 go build -C "$here" -trimpath -gcflags 'all=-N -l' -ldflags '-s -w' -o "$2/etcd" \
			go.etcd.io/etcd/server/v3
		;;
	node) kubernetes "$2" kubelet kube-controller-manager kube-scheduler kube-proxy ;;
	dns) GOFLAGS='-buildvcs=false -mod=readonly' nice -n 19 go build -C "$here/dns" -trimpath -gcflags 'all=-N -l' -ldflags '-s -w' -o "$2/coredns" . ;;
	definitions) (cd "$2" && definitions "$2") ;;
	helm) GOBIN="$2" GOFLAGS=-buildvcs=false nice -n 19 go install -trimpath -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$helm_version" ;;
	esac
}

for part in "${@:-api}"; do
	case "$part" in
	api) folder="$cache/kubernetes-${version#v}" ;;
	node) folder="$cache/kubernetes-node-${version#v}" ;;
	helm) folder="$cache/helm-${helm_version#v}" ;;
	dns) folder="$cache/coredns-${dns_version#v}" ;;
	definitions) folder="$cache/definitions-${istio_version#v}-${gateway_api_version#v}-${envoy_gateway_version#v}-${cert_manager_version#v}" ;;
	*)
		echo "expected a part (api, node, helm, dns, definitions), got $part" >&2
		exit 2
		;;
	esac
	if [ "$part" = api ] && [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
		for program in kube-apiserver kubectl etcd; do
			[ -x "$KUBEBUILDER_ASSETS/$program" ] || { echo "KUBEBUILDER_ASSETS: $KUBEBUILDER_ASSETS has no program $program; unset it to have the programs built" >&2; exit 1; }
		done
		echo "$KUBEBUILDER_ASSETS"
		continue
	fi
	if [ ! -e "$folder/.complete" ]; then
		command -v go >/dev/null || { echo "building the Kubernetes programs needs Go 1.26 or newer; install it, or name a folder that holds those of the API server in KUBEBUILDER_ASSETS" >&2; exit 1; }
		mkdir -p "$cache"
		exec 9>"$cache/kubernetes.lock"
		flock 9
		rm -rf "$cache"/kubernetes-aside.* # of builds that were killed
		if [ ! -e "$folder/.complete" ]; then # another build may have finished while this one waited
			aside="$(mktemp -d "$cache/kubernetes-aside.XXXXXX")"
			trap 'rm -rf "$aside"' EXIT
			build "$part" "$aside" >&2
			touch "$aside/.complete"
			chmod 755 "$aside"
			rm -rf "$folder"
			mv -T "$aside" "$folder"
		fi
		exec 9>&-
	fi
	echo "$folder"
done
