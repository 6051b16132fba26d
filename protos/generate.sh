#!/bin/sh
# Generates the Python of every .proto file. Usage: generate.sh PYTHON [FOLDER]; run from the root of the repository.
set -eu
python=$1
out=${2:-.}
"$python" -m grpc_tools.protoc --proto_path=protos --python_out="$out" --pyi_out="$out" protos/authz/pb/*.proto
