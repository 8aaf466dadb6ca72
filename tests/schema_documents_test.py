#!/usr/bin/env python3
"""Whole stack files judged by the JSON Schema and by the reader: both accept, or both refuse.

The reader is the real program (`container config -q -f -`); documents are JSON, which is YAML.
Usage: tests/schema_documents_test.py BUILD_FOLDER
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import jsonschema

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = SOURCE / "build"
SCHEMA = json.loads((SOURCE / "schema/stack.schema.json").read_text())

# Attributes of one service that both accept. Each is judged alone.
GOOD_SERVICE = [
    {"build": "."}, {"build": {"context": ".", "args": ["A=1", "B"], "no_cache": "true"}},
    {"build": {"ssh": {"default": None}, "labels": {"a": 1}, "tags": ["x:1"], "sbom": True}},
    {"build": {"secrets": ["token", {"source": "token", "target": "t", "mode": "0440", "uid": 5}]}},
    {"build": {"isolation": "default", "entitlements": ["security.insecure"]}},
    {"command": "run it"}, {"command": ["run", 1, True]}, {"command": None}, {"command": []},
    {"entrypoint": "run"}, {"entrypoint": None},
    {"environment": {"A": 1, "B": None, "C": "x", "D": 1.5, "E": True}}, {"environment": ["A=1", "B"]},
    {"env_file": []}, {"labels": ["a=b", "c"]}, {"labels": {"a": 1}}, {"annotations": {"a": "b"}},
    {"restart": "no"}, {"restart": "on-failure:3"}, {"restart": "unless-stopped"},
    {"restart": "${NONE:-always}"},
    {"stop_signal": "SIGINT"}, {"stop_signal": 9}, {"stop_grace_period": "1m30s"},
    {"stop_grace_period": "${NONE:-5s}"}, {"stop_grace_period": 0},
    {"scale": 2}, {"scale": "2"}, {"scale": "${NONE:-2}"}, {"deploy": {"replicas": 0}},
    {"deploy": {"mode": "replicated", "resources": {"limits": {"cpus": "0.5", "memory": "64m"}}}},
    {"deploy": {"resources": {"reservations": {"cpus": "0.5", "memory": "64m"}}}},
    {"logging": {"driver": "json-file", "options": {"max-size": "10m"}}}, {"mem_reservation": 1},
    {"healthcheck": {"test": "true", "interval": "1s", "retries": 3}},
    {"healthcheck": {"test": ["NONE"]}}, {"healthcheck": {"disable": True}},
    {"healthcheck": {"start_period": "1s", "start_interval": "500ms"}},
    {"init": True}, {"init": "yes"}, {"tty": "${NONE:-true}"}, {"tty": "False"},
    {"cpus": 1}, {"cpus": "0.5"}, {"cpus": 1.5}, {"mem_limit": "128m"}, {"mem_limit": 134217728},
    {"mem_limit": "1.5 GiB"}, {"shm_size": "64mb"}, {"pids_limit": -1},
    {"ulimits": {"nofile": 10, "nproc": {"soft": 1, "hard": "2"}}},
    {"sysctls": {"net.core.somaxconn": 512}}, {"sysctls": ["net.core.somaxconn=512"]},
    {"cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"]}, {"privileged": False},
    {"group_add": ["audio", 5]}, {"hostname": "web"}, {"container_name": "web-1"},
    {"network_mode": "none"}, {"networks": ["front"]}, {"networks": {"front": None}},
    {"networks": {"front": {"aliases": ["www"], "priority": 3, "gw_priority": "1"}}},
    {"mac_address": "02:00:00:00:00:01"}, {"dns": "1.1.1.1"}, {"dns": ["1.1.1.1", "::1"]},
    {"dns_search": "test"}, {"dns_opt": ["ndots:1"]}, {"extra_hosts": ["a=10.0.0.1"]},
    {"extra_hosts": {"a": "host-gateway", "b": ["10.0.0.1", "::1"]}}, {"expose": [80, "53/udp"]},
    {"ports": [80, "8080:80", "127.0.0.1:81:80/udp", {"target": 80, "published": "82"}]},
    {"ports": [{"target": 80, "host_ip": "::1", "protocol": "udp", "x-why": 1}]},
    {"ports": ["8000-8010:80", {"target": 80, "published": "8000-8010", "mode": "host"}]},
    {"volumes": ["data:/d", "./a:/b:ro", "/anonymous"]},
    {"volumes": [{"type": "bind", "source": ".", "target": "/a",
                  "bind": {"create_host_path": False}}]},
    {"volumes": [{"type": "volume", "source": "data", "target": "/a", "volume": {"nocopy": True}}]},
    {"volumes": [{"type": "tmpfs", "target": "/a", "tmpfs": {"size": "1m", "mode": "1777"}}]},
    {"tmpfs": "/run"}, {"tmpfs": ["/run:size=1m", "/tmp"]}, {"read_only": "on"},
    {"depends_on": ["other"]}, {"depends_on": {"other": None}},
    {"depends_on": {"other": {"condition": "service_started", "required": False}}},
    {"pull_policy": "never"}, {"pull_policy": "always"}, {"platform": "linux/amd64"}, {"working_dir": "/srv"},
    {"x-boot": "cold"}, {"x-mine": {"a": [1, {}]}}, {"user": "1000:1000"},
    {"ports": [{"target": 80, "mode": "host", "name": "http"}]}, {"ports!reset": True},
    {"deploy": {"placement": {"constraints": ["a"]}}},
    {"build": {"ulimits": {"nofile": 5, "nproc": {"soft": 1, "hard": 2}}}},
    {"build": {"no_cache_filter": "base"}}, {"build": {"no_cache_filter": ["base", "1"]}},
]

# Attributes of one service that both refuse.
BAD_SERVICE = [
    {"imgae": "x"}, {"image": 5}, {"image": None}, {"image": ["x"]}, {"build": ["."]}, {"build": {"dockerfil": "x"}}, {"build": {"secrets": [{"target": "a"}]}},
    {"build": {"secrets": "token"}},
    {"build": {"secrets": [{"source": "token", "mode": "often"}]}}, {"build": {"isolation": "hyperv"}},
    {"build": {"entitlements": ["network.host"]}}, {"build": {"ulimits": {"nofile": True}}},
    {"build": {"no_cache_filter": {"a": 1}}},
    {"command": {"a": 1}}, {"command": True}, {"environment": 5}, {"environment": ["A", None]},
    {"environment": {"A": []}}, {"labels": "a=b"}, {"restart": "sometimes"}, {"restart": False},
    {"restart": "on-failure:x"}, {"stop_signal": True}, {"stop_grace_period": 10},
    {"stop_grace_period": "soon"}, {"scale": 1.5}, {"scale": []}, {"scale": "two"},
    {"deploy": {"mode": "global"}}, {"deploy": {"replica": 1}}, {"deploy": {"labels": {}}},
    {"deploy": {"resources": {"reservations": {"devices": []}}}},
    {"logging": {"driver": "fluentd"}}, {"logging": {"drivers": "local"}}, {"logging": "local"},
    {"healthcheck": "true"}, {"healthcheck": {"test": 5}}, {"healthcheck": {"tset": "true"}},
    {"healthcheck": {"interval": "often"}}, {"init": "perhaps"}, {"tty": 1}, {"tty": None},
    {"cpus": True}, {"cpus": "many"}, {"mem_limit": "lots"}, {"mem_limit": -1},
    {"mem_limit": [1]}, {"pids_limit": "few"}, {"ulimits": ["nofile"]}, {"ulimits": {"nofile": True}},
    {"ulimits": {"nofile": {"soft": 1}}}, {"sysctls": 5}, {"cap_add": "NET_ADMIN"},
    {"cap_add": [None]}, {"cap_add": [["ALL"]]}, {"group_add": "audio"}, {"hostname": 5},
    {"container_name": "../x"}, {"container_name": "x" * 64}, {"network_mode": "host"},
    {"networks": "front"}, {"networks": {"front": []}}, {"networks": {"front": {"alias": ["x"]}}},
    {"networks": {"front": {"aliases": "www"}}}, {"networks": {"front": {"ipv6_address": "::1"}}},
    {"dns": {"a": 1}}, {"extra_hosts": "a=10.0.0.1"}, {"expose": [True]}, {"ports": 80},
    {"ports": [None]}, {"ports": [{"published": 80}]}, {"ports": [{"target": 80, "prot": "tcp"}]},
    {"ports": [{"target": 80, "protocol": "sctp"}]}, {"volumes": "data:/d"}, {"volumes": [5]},
    {"volumes": [{"source": ".", "target": "/a"}]}, {"volumes": [{"type": "npipe", "target": "/a"}]},
    {"volumes": [{"type": "bind", "source": "."}]},
    {"volumes": [{"type": "bind", "source": ".", "target": "/a", "bind": {"propagation": "shared"}}]},
    {"tmpfs": {"a": 1}}, {"read_only": "maybe"}, {"depends_on": "other"},
    {"depends_on": {"other": {"condition": "service_well"}}}, {"depends_on": {"other": {}}},
    {"depends_on": {"other": []}}, {"pull_policy": "sometimes"}, {"pull_policy": "daily"}, {"x-boot": "warm"},
    {"profiles": ["a"]}, {"pid": "host"}, {"secrets": ["a"]}, {"privileged": []},
    {"env_file": [{"required": False}]}, {"env_file": {"path": "a"}}, {"env_file": [5]},
]

GOOD_FILES = [
    {"services": {"a": {"image": "x"}}, "secrets": {"a": {"file": "x"}, "b": {"environment": "Y"}}},
    {"services": {"a": {"image": "x"}}},
    {"version": "3.8", "name": "shop", "services": {"a": {"image": "x"}}, "x-mine": [1]},
    {"version": 3, "services": {"a": {"image": "x"}}, "networks": None, "volumes": None},
    {"services": {"a": {"image": "x"}}, "networks": {"n": None, "m": {
        "internal": True, "driver": "bridge", "labels": {"a": "b"},
        "ipam": {"driver": "default", "config": [{"subnet": "10.0.0.0/24"}]}}}},
    {"services": {"a": {"image": "x"}}, "volumes": {
        "v": {"external": True, "name": "w"}, "u": {"external": {"name": "w"}},
        "t": {"driver": "local", "labels": ["a=b"]}}},
]
BAD_FILES = [
    {"services": {"a": {"image": "x"}}, "secrets": {"a": {}}},
    {"services": {"a": {"image": "x"}}, "secrets": {"a": {"file": "x", "environment": "Y"}}},
    {"services": {"a": {"image": "x"}}, "secrets": {"a": {"external": True}}},
    [], {"serivces": {}, "services": {"a": {"image": "x"}}}, {"services": []}, {"services": None},
    {"services": {"a": None}}, {"services": {"a": "x"}}, {"services": {"../a": {"image": "x"}}},
    {"name": ["a"], "services": {"a": {"image": "x"}}},
    {"include": ["a"], "services": {"a": {"image": "x"}}},
    {"configs": {}, "services": {"a": {"image": "x"}}},
    {"services": {"a": {"image": "x"}}, "networks": ["a"]},
    {"services": {"a": {"image": "x"}}, "networks": {"a": {"driver": "overlay"}}},
    {"services": {"a": {"image": "x"}}, "networks": {"a": {"ipam": {"config": {}}}}},
    {"services": {"a": {"image": "x"}}, "networks": {"a": {"ipam": {"config": [{"range": "x"}]}}}},
    {"services": {"a": {"image": "x"}}, "networks": {"a": {"internal": "perhaps"}}},
    {"services": {"a": {"image": "x"}}, "volumes": {"a": {"driver": "nfs"}}},
    {"services": {"a": {"image": "x"}}, "volumes": {"a": {"driver_opts": {}}}},
    {"services": {"a": {"image": "x"}}, "volumes": {"a": {"external": []}}},
]


def in_a_file(attributes):
    service = {"image": "x", **attributes}
    return {"services": {"a": service, "other": {"image": "x"}}, "networks": {"front": None},
            "volumes": {"data": None}, "secrets": {"token": {"file": "token"}}}


class Judges(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        cls.validator = jsonschema.Draft202012Validator(SCHEMA)
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)

    def reader_accepts(self, document):
        done = subprocess.run(
            [BUILD / "bin/container", "config", "--quiet", "--project-name", "test", "--file", "-"],
            input=json.dumps(document), text=True, capture_output=True, check=False, timeout=30,
            cwd=self.folder.name, env={"HOME": self.folder.name, "PATH": "/usr/bin"})
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.returncode == 0, done.stderr

    def judge(self, document, good):
        accepts, words = self.reader_accepts(document)
        self.assertEqual(accepts, good, f"the reader on {document}:\n{words}")
        problems = list(self.validator.iter_errors(document))
        self.assertEqual(not problems, good, f"the schema on {document}: {problems[:1]}")

    def test_services(self):
        for documents, good in ((GOOD_SERVICE, True), (BAD_SERVICE, False)):
            for attributes in documents:
                with self.subTest(attributes=attributes):
                    self.judge(in_a_file(attributes), good)

    def test_files(self):
        for documents, good in ((GOOD_FILES, True), (BAD_FILES, False)):
            for document in documents:
                with self.subTest(document=document):
                    self.judge(document, good)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BUILD = pathlib.Path(sys.argv.pop(1))
    unittest.main()
