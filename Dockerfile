# otway's three images: `network` for KMS, BSF, CSCF and mailbox, `ue` for what speaks, hears or mixes (hosts of
# handsets, transcoder, conference), `setup` for what runs once.
#
#     docker build --target network -t otway-network .
#
# They differ in what is installed beside otway itself: a KMS has no business with sound, and only the set-up
# may make topics and access lists.
ARG PYTHON_IMAGE=python:3.13-slim

# What pyproject.toml asks for, before any source, so that a change of the source does not fetch it again.
FROM ${PYTHON_IMAGE} AS libraries
RUN python -m venv /opt/otway && /opt/otway/bin/pip install --no-cache-dir --disable-pip-version-check hatchling
WORKDIR /source
COPY pyproject.toml deploy/libraries.py ./
RUN python libraries.py speed > wanted.txt \
 && /opt/otway/bin/pip install --no-cache-dir --disable-pip-version-check -r wanted.txt

FROM libraries AS libraries-ue
RUN python libraries.py media > wanted.txt \
 && /opt/otway/bin/pip install --no-cache-dir --disable-pip-version-check -r wanted.txt

FROM libraries AS libraries-setup
RUN python libraries.py setup > wanted.txt \
 && /opt/otway/bin/pip install --no-cache-dir --disable-pip-version-check -r wanted.txt

FROM libraries AS built
COPY . ./
RUN /opt/otway/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps -w /wheel .

# What all three have: a user without rights, and nothing that has to be written to.
FROM ${PYTHON_IMAGE} AS bare
RUN useradd --uid 10001 --create-home --home-dir /home/otway otway \
 && install -d -o otway -g otway /home/otway/memory
ENV PATH=/opt/otway/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/otway
STOPSIGNAL SIGTERM
ENTRYPOINT ["otway"]

FROM bare AS setup
COPY --from=libraries-setup /opt/otway /opt/otway
COPY --from=built /wheel /wheel
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /wheel/*.whl
USER otway

FROM bare AS ue
COPY --from=libraries-ue /opt/otway /opt/otway
COPY --from=built /wheel /wheel
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /wheel/*.whl
USER otway

FROM bare AS network
COPY --from=libraries /opt/otway /opt/otway
COPY --from=built /wheel /wheel
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /wheel/*.whl
USER otway
