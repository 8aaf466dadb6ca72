/// Build steps in real virtual machines. Needs the guest's folder: CONTAINER_GUEST_DIR.

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <doctest/doctest.h>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "runtime/driver.h"

namespace fs = std::filesystem;
using base::Deadline;
using base::Result;
using reconciler::BuildStep;
using reconciler::StepMountKind;

namespace {

constexpr int patience_ms = 60'000;
constexpr size_t mebibyte = 1u << 20;

// ---- archives, by libarchive: what we write must be right in its eyes
// ----------------------------

struct Member {
  std::string path;
  mode_t type = AE_IFREG;
  std::string content;  ///< Or the target of a symbolic link.
  mode_t mode = 0644;
  int64_t user = 0;
  int64_t group = 0;
  std::string hard_link;
  std::map<std::string, std::string> xattrs;
  int device_major = 0;
  int device_minor = 0;
};

std::string make_tar(const std::vector<Member>& members) {
  std::string bytes;
  archive* writer = archive_write_new();
  archive_write_set_format_pax(writer);
  archive_write_set_bytes_per_block(writer, 512);
  archive_write_open(
      writer, &bytes, nullptr,
      [](archive*, void* to, const void* data, size_t size) -> la_ssize_t {
        static_cast<std::string*>(to)->append(static_cast<const char*>(data), size);
        return static_cast<la_ssize_t>(size);
      },
      nullptr);
  for (const Member& member : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, member.path.c_str());
    archive_entry_set_filetype(entry, member.type);
    archive_entry_set_perm(entry, member.mode);
    archive_entry_set_uid(entry, member.user);
    archive_entry_set_gid(entry, member.group);
    archive_entry_set_mtime(entry, 1'600'000'000, 0);
    archive_entry_set_rdevmajor(entry, static_cast<dev_t>(member.device_major));
    archive_entry_set_rdevminor(entry, static_cast<dev_t>(member.device_minor));
    for (const auto& [name, value] : member.xattrs)
      archive_entry_xattr_add_entry(entry, name.c_str(), value.data(), value.size());
    const bool is_file = member.type == AE_IFREG && member.hard_link.empty();
    if (member.type == AE_IFLNK) archive_entry_set_symlink(entry, member.content.c_str());
    if (!member.hard_link.empty()) archive_entry_set_hardlink(entry, member.hard_link.c_str());
    archive_entry_set_size(entry, is_file ? static_cast<la_int64_t>(member.content.size()) : 0);
    REQUIRE(archive_write_header(writer, entry) == ARCHIVE_OK);
    if (is_file)
      REQUIRE(archive_write_data(writer, member.content.data(), member.content.size()) ==
              static_cast<la_ssize_t>(member.content.size()));
    archive_entry_free(entry);
  }
  archive_write_close(writer);
  archive_write_free(writer);
  return bytes;
}

/// One line of a listing: `f 644 0:0 etc/motd "hello"`.
std::string describe(archive* reader, archive_entry* entry) {
  const char* link = archive_entry_hardlink(entry);
  std::string line;
  const auto type = archive_entry_filetype(entry);
  const std::string head =
      fmt::format("{:o} {}:{} {}", archive_entry_perm(entry), archive_entry_uid(entry),
                  archive_entry_gid(entry), archive_entry_pathname(entry));
  if (link != nullptr) {
    line = fmt::format("h {} -> {}", archive_entry_pathname(entry), link);
  } else if (type == AE_IFLNK) {
    line = fmt::format("l {} -> {}", head, archive_entry_symlink(entry));
  } else if (type == AE_IFDIR) {
    line = "d " + head;
  } else if (type == AE_IFIFO) {
    line = "p " + head;
  } else if (type == AE_IFCHR || type == AE_IFBLK) {
    line = fmt::format("{} {} {},{}", type == AE_IFCHR ? 'c' : 'b', head,
                       archive_entry_rdevmajor(entry), archive_entry_rdevminor(entry));
  } else {
    std::string content(static_cast<size_t>(archive_entry_size(entry)), '\0');
    REQUIRE(archive_read_data(reader, content.data(), content.size()) ==
            static_cast<la_ssize_t>(content.size()));
    line = content.size() > 40 ? fmt::format("f {} {} bytes", head, content.size())
                               : fmt::format("f {} \"{}\"", head, base::escape_controls(content));
  }
  archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK)
    line += fmt::format(" {}={}", name, std::string(static_cast<const char*>(value), size));
  return line + "\n";
}

std::string listing(const std::string& tar) {
  archive* reader = archive_read_new();
  archive_read_support_format_tar(reader);
  REQUIRE(archive_read_open_memory(reader, tar.data(), tar.size()) == ARCHIVE_OK);
  std::string text;
  archive_entry* entry = nullptr;
  int status = 0;
  while ((status = archive_read_next_header(reader, &entry)) == ARCHIVE_OK)
    text += describe(reader, entry);
  CHECK_MESSAGE(status == ARCHIVE_EOF, text);
  archive_read_free(reader);
  return text;
}

reconciler::ByteProducer bytes_of(const std::string& tar) {
  return [&tar, at = size_t{0}](char* buffer, size_t capacity) mutable -> Result<size_t> {
    const size_t count = std::min(capacity, tar.size() - at);
    std::memcpy(buffer, tar.data() + at, count);
    at += count;
    return count;
  };
}

Member program(const std::string& path, const std::string& host_path) {
  return {.path = path, .content = base::read_file(host_path, 64 * mebibyte).value(), .mode = 0755};
}

/// busybox with names for what the tests use, and the probe.
std::string tools_layer() {
  std::vector<Member> members = {{.path = "bin/", .type = AE_IFDIR, .mode = 0755},
                                 {.path = "etc/", .type = AE_IFDIR, .mode = 0755},
                                 {.path = "tmp/", .type = AE_IFDIR, .mode = 01777}};
  members.push_back(program("bin/busybox", "/bin/busybox"));
  members.push_back(program("bin/build-probe", CONTAINER_BINARY_DIR "/tests/build-probe"));
  for (const char* name :
       {"sh",    "cat",   "sleep", "ls", "mkdir", "rm",       "ln",   "mknod", "mkfifo",
        "chown", "chmod", "head",  "id", "touch", "stat",     "find", "ip",    "kill",
        "dd",    "true",  "cp",    "mv", "grep",  "hostname", "wc",   "seq",   "test"})
    members.push_back(
        {.path = std::string("bin/") + name, .type = AE_IFLNK, .content = "busybox", .mode = 0777});
  return make_tar(members);
}

const std::string& tools() {
  static const std::string tar = tools_layer();
  return tar;
}

// ---- machines ----------------------------------------------------------------------------------

/// One system with a build machine that has the tools; nothing is left of it afterwards.
struct Builds {
  fs::path folder;
  std::unique_ptr<runtime::RuntimeDriver> driver;
  std::unique_ptr<reconciler::BuildSession> session;

  Builds() {
    std::string name = (fs::temp_directory_path() / "builds-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    const char* guest = std::getenv("CONTAINER_GUEST_DIR");
    REQUIRE_MESSAGE(guest != nullptr, "CONTAINER_GUEST_DIR names the folder of vmlinux");
    driver = std::move(runtime::RuntimeDriver::open({.app_root = folder / "app",
                                                     .run_root = folder / "run",
                                                     .programs = CONTAINER_BINARY_DIR "/bin",
                                                     .guest = guest,
                                                     .accelerator = "tcg"})
                           .value());
    REQUIRE(driver->adopt([](const reconciler::VmEvent&) {}));
  }
  ~Builds() {
    session.reset();
    const auto left = driver->list();
    CHECK(left);
    for (const auto& seen : left.value_or(std::vector<reconciler::VmObservation>{})) {
      CHECK(driver->stop(seen.id, SIGKILL, 0));
      CHECK(driver->remove(seen.id));
    }
    driver.reset();
    fs::remove_all(folder);
  }

  static reconciler::StartRequest request(const std::string& id) {
    reconciler::StartRequest request;
    request.setup.id = id;
    request.setup.service.build_machine = true;
    request.setup.service.memory_bytes = 256u << 20;
    request.setup.image.reference = "scratch";
    request.hosts = "127.0.0.1 localhost\n";
    return request;
  }

  void start(const std::string& id) { start(request(id)); }
  void start(const reconciler::StartRequest& request) {
    REQUIRE(driver->create(request.setup));
    const auto started = driver->start(request);
    REQUIRE_MESSAGE(started, started.error().to_string());
    auto opened = driver->open_build(request.setup.id);
    REQUIRE_MESSAGE(opened, opened.error().to_string());
    session = std::move(*opened);
    add("tools", tools());
  }

  void add(const std::string& id, const std::string& tar) const {
    const auto added = session->add_layer(id, bytes_of(tar));
    REQUIRE_MESSAGE(added, added.error().to_string());
  }

  static BuildStep script(const std::string& id, const std::string& text) {
    BuildStep step;
    step.id = id;
    step.arguments = {"/bin/sh", "-c", text};
    return step;
  }

  struct Ended {
    int32_t code = -1;
    std::string out;
    std::string err;
  };
  Ended run(const BuildStep& step) const {
    Ended ended;
    const auto code = session->run(step, [&](int stream, std::string_view bytes) {
      (stream == 1 ? ended.out : ended.err) += bytes;
      return true;
    });
    REQUIRE_MESSAGE(code, code.error().to_string());
    ended.code = *code;
    return ended;
  }
  Ended run(const std::string& id, const std::string& text) const { return run(script(id, text)); }

  std::string layer(const std::string& id) const {
    std::string tar;
    const auto taken = session->take_layer(id, [&](std::string_view bytes) -> Result<> {
      tar += bytes;
      return {};
    });
    REQUIRE_MESSAGE(taken, taken.error().to_string());
    return tar;
  }
  /// The layer of a step that must succeed.
  std::string changes(const std::string& id, const std::string& text) const {
    const Ended ended = run(id, text);
    CHECK_MESSAGE(ended.code == 0, ended.err);
    return listing(layer(id));
  }
};

/// A server on a socket of the host that answers each connection in capital letters.
class Shouter {
 public:
  explicit Shouter(const std::string& path) : socket_(base::listen_unix(path).value()) {
    thread_ = std::thread([this] { serve(); });
  }
  ~Shouter() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }

 private:
  void serve() const {
    for (;;) {
      const base::UniqueFd client(::accept(socket_.get(), nullptr, nullptr));
      if (!client) return;
      std::string text;
      char buffer[4096];
      ssize_t count = 0;
      while ((count = ::read(client.get(), buffer, sizeof buffer)) > 0)
        text.append(buffer, static_cast<size_t>(count));
      std::transform(text.begin(), text.end(), text.begin(),
                     [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      (void)base::write_all(client.get(), text);
    }
  }
  base::UniqueFd socket_;
  std::thread thread_;
};

/// A field of /proc/self/status, in KiB.
int64_t own_memory_kib(const std::string& field) {
  const std::string status = base::read_file("/proc/self/status", mebibyte).value();
  const size_t at = status.find(field + ":");
  REQUIRE(at != std::string::npos);
  return std::stoll(status.substr(at + field.size() + 1));
}

/// An archive of one file of zeros, made while it is read.
reconciler::ByteProducer large_archive(size_t content_bytes) {
  const size_t header_bytes = 512;
  std::string head =
      make_tar({{.path = "large", .content = std::string(512, '\0')}}).substr(0, header_bytes);
  // The size, then the checksum anew: the sum of all bytes, the checksum's own as spaces.
  head.replace(124, 11, fmt::format("{:011o}", content_bytes));
  head.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : head) sum += static_cast<unsigned char>(c);
  head.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  const size_t end = header_bytes + content_bytes + 1024;
  return [head, end, at = size_t{0}](char* buffer, size_t capacity) mutable -> Result<size_t> {
    const size_t count = std::min(capacity, end - at);
    std::memset(buffer, 0, count);
    if (at < head.size()) std::memcpy(buffer, head.data() + at, std::min(count, head.size() - at));
    at += count;
    return count;
  };
}

}  // namespace

TEST_CASE("a step's layer holds what the step changed, and nothing else") {
  Builds builds;
  builds.start("files");
  builds.add("base", make_tar({{.path = "keep/", .type = AE_IFDIR, .mode = 0755},
                               {.path = "keep/old", .content = "old"},
                               {.path = "gone", .content = "gone"},
                               {.path = "replaced/", .type = AE_IFDIR, .mode = 0755},
                               {.path = "replaced/inner", .content = "inner"}}));

  CHECK(builds.changes("nothing", "true") == "");
  CHECK(builds.changes("made",
                       "mkdir /new && echo hi > /new/file && ln -s file /new/link && "
                       "chmod 600 /new/file && chown 1000:50 /new/file") ==
        "d 755 0:0 new/\n"
        "f 600 1000:50 new/file \"hi\\x0a\"\n"
        "l 777 0:0 new/link -> file\n");
  CHECK(builds.changes("removed",
                       "rm /gone && rm -r /replaced && mkdir /replaced && "
                       "echo x > /replaced/other && echo new > /keep/old") ==
        "f 0 0:0 .wh.gone \"\"\n"
        "d 755 0:0 keep/\n"
        "f 644 0:0 keep/old \"new\\x0a\"\n"
        "d 755 0:0 replaced/\n"
        "f 0 0:0 replaced/.wh..wh..opq \"\"\n"
        "f 644 0:0 replaced/other \"x\\x0a\"\n");
  CHECK(builds.run("seen", "ls / /replaced; cat /keep/old").out.find("gone") == std::string::npos);
}

TEST_CASE("links, devices, pipes, attributes and odd names come out as they were made") {
  Builds builds;
  builds.start("special");
  const std::string longer(120, 'n');

  CHECK(builds.changes("made",
                       "mkdir /d && cd /d && echo one > a && ln a b && mknod c c 1 3 && "
                       "mknod e b 7 1 && mkfifo f && chmod 4711 a && "
                       "build-probe set a user.note hello && touch " +
                           longer + " && chown 3000000 " + longer + " && chmod 1777 .") ==
        "d 1777 0:0 d/\n"
        "f 4711 0:0 d/a \"one\\x0a\" user.note=hello\n"
        "h d/b -> d/a\n"
        "c 644 0:0 d/c 1,3\n"
        "b 644 0:0 d/e 7,1\n"
        "p 644 0:0 d/f\n"
        "f 644 3000000:0 d/" +
            longer + " \"\"\n");
  CHECK(builds.changes("root", "chmod 700 /") == "d 700 0:0 ./\n");
  CHECK(builds.changes("after", "stat -c %a /") == "");
}

TEST_CASE("a layer that goes out and comes in again is the same") {
  Builds builds;
  builds.start("round");
  CHECK(builds
            .run("made",
                 "mkdir -p /a/b && echo x > /a/b/f && ln /a/b/f /a/g && ln -s /etc /a/l && "
                 "mknod /a/n c 1 5 && build-probe set /a/b user.k v && rm -r /tmp")
            .code == 0);
  const std::string out = builds.layer("made");
  builds.add("again", out);
  CHECK(builds.layer("again") == out);
}

TEST_CASE("hostile archives stay inside their layer") {
  Builds builds;
  builds.start("hostile");
  builds.add(
      "evil",
      make_tar({{.path = "../../escape", .content = "1"},
                {.path = "/absolute", .content = "2"},
                {.path = "way", .type = AE_IFLNK, .content = "/run", .mode = 0777},
                {.path = "way/in", .content = "3"},
                {.path = "mark", .content = "4", .xattrs = {{"trusted.overlay.opaque", "y"}}},
                {.path = "white", .type = AE_IFCHR}}));
  CHECK(listing(builds.layer("evil")) ==
        "f 644 0:0 absolute \"2\"\n"
        "f 644 0:0 escape \"1\"\n"
        "f 644 0:0 mark \"4\"\n"
        "d 755 0:0 way/\n"
        "f 644 0:0 way/in \"3\"\n");
  const auto refused = builds.session->add_layer(
      "linked", bytes_of(make_tar({{.path = "passwd", .hard_link = "../../init"}})));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("hard link") != std::string::npos);
  const auto garbage = builds.session->add_layer("garbage", bytes_of(std::string(100'000, 'x')));
  REQUIRE_FALSE(garbage);
  CHECK(garbage.error().code() == base::ErrorCode::InvalidArgument);
  CHECK(builds.run("fine", "ls /linked /garbage").code != 0);
}

TEST_CASE("a step that fails, or is ended, leaves no layer") {
  Builds builds;
  builds.start("fails");
  const auto failed = builds.run("bad", "echo out; echo err >&2; touch /trace; exit 3");
  CHECK(failed.code == 3);
  CHECK(failed.out == "out\n");
  CHECK(failed.err == "err\n");
  CHECK(builds.run("killed", "touch /trace; sh -c 'kill -9 $$'; exit $?").code == 137);
  CHECK(builds.run("look", "test -e /trace").code == 1);
  CHECK_FALSE(builds.session->take_layer("bad", [](std::string_view) { return Result<>(); }));
  BuildStep absent = Builds::script("absent", "");
  absent.arguments = {"/no/such/program"};
  const auto refused = builds.session->run(absent, [](int, std::string_view) { return true; });
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("/no/such/program") != std::string::npos);
  CHECK(builds.run("after", "sleep 1000 & echo done").out == "done\n");
}

TEST_CASE("mounts are there during the step, and leave no trace in its layer") {
  Builds builds;
  builds.start("mounts");
  REQUIRE(builds.session->add_tree(
      "context", bytes_of(make_tar({{.path = "src/", .type = AE_IFDIR, .mode = 0755},
                                    {.path = "src/main", .content = "main"},
                                    {.path = ".wh.kept", .content = "kept"}}))));
  BuildStep step =
      Builds::script("mounted",
                     "cat /ro/src/main /one /ro/.wh.kept; "
                     "echo x > /ro/y && echo wrong; "
                     "echo y > /rw/new && cat /rw/new /rw/main; "
                     "cat /run/secrets/key > /dev/null && stat -c '%a %u' /run/secrets/key; "
                     "touch /scratch/x && echo t; echo real > /result");
  step.mounts = {
      {.kind = StepMountKind::Tree, .source = "context", .target = "/ro", .read_only = true},
      {.kind = StepMountKind::Tree,
       .source = "context",
       .source_path = "src/main",
       .target = "/one",
       .read_only = true},
      {.kind = StepMountKind::Tree, .source = "context", .source_path = "src", .target = "/rw"},
      {.kind = StepMountKind::Secret,
       .target = "/run/secrets/key",
       .mode = 0440,
       .user = 12,
       .secret = std::string("s\0\xff", 3)},
      {.kind = StepMountKind::Tmpfs, .target = "/scratch", .tmpfs_bytes = mebibyte}};
  const auto ended = builds.run(step);
  CHECK(ended.out ==
        "mainmainkept"
        "y\nmain"
        "440 12\nt\n");
  CHECK(ended.code == 0);
  CHECK(listing(builds.layer("mounted")) == "f 644 0:0 result \"real\\x0a\"\n");

  BuildStep again = Builds::script("again", "ls /rw /run; test -e /rw/new");
  again.mounts = {step.mounts[2]};
  CHECK(builds.run(again).code == 1);
}

TEST_CASE("a cache is kept from machine to machine, and only for steps that ask for it") {
  Builds builds;
  fs::create_directories(builds.folder / "cache");
  for (const std::string run : {"first", "second"}) {
    auto request = Builds::request(run);
    request.setup.shares = {{.host_path = builds.folder / "cache", .target = "/.cache/one"}};
    builds.start(request);
    BuildStep step =
        Builds::script("use", "echo " + run + " >> /root/cache/log; cat /root/cache/log");
    step.mounts = {
        {.kind = StepMountKind::Share, .source = "/.cache/one", .target = "/root/cache"}};
    CHECK(builds.run(step).out == (run == "first" ? "first\n" : "first\nsecond\n"));
    CHECK(listing(builds.layer("use")) == "");
    CHECK(builds.run("without", "test -e /.cache").code == 1);
    REQUIRE(builds.driver->stop(run, SIGKILL, 0));
  }
}

TEST_CASE("a step's names, environment, user and input are its own") {
  Builds builds;
  builds.start("names");
  BuildStep step = Builds::script("named",
                                  "hostname; grep db /etc/hosts; echo $GREETING $HOME; id -u; pwd; "
                                  "cat; ip link | grep -c mtu");
  step.hostname = "builder";
  step.extra_hosts = {"db=10.1.2.3"};
  step.environment = {"GREETING=hello", "PATH=/bin"};
  step.user = "7";
  step.working_dir = "/tmp";
  step.stdin_text = "typed\n";
  step.network = false;
  CHECK(builds.run(step).out == "builder\n10.1.2.3 db\nhello /\n7\n/tmp\ntyped\n1\n");
  CHECK(listing(builds.layer("named")) == "");
  const auto privileged = [&](const std::string& id, bool is_privileged) {
    BuildStep mount = Builds::script(id, "mkdir -p /m && busybox mount -t tmpfs none /m");
    mount.privileged = is_privileged;
    return builds.run(mount).code;
  };
  CHECK(privileged("plain", false) != 0);
  CHECK(privileged("privileged", true) == 0);
}

TEST_CASE("a working directory that is missing is made, open to everybody") {
  Builds builds;
  builds.start("workdir");
  BuildStep step = Builds::script("made", "true");
  step.working_dir = "/srv/app";
  CHECK(builds.run(step).code == 0);
  CHECK(listing(builds.layer("made")) == "d 755 0:0 srv/\nd 755 0:0 srv/app/\n");
}

TEST_CASE("connections to an agent's socket reach the host's") {
  Builds builds;
  builds.start("agent");
  const std::string path = builds.folder / "shout";
  const Shouter shouter(path);
  BuildStep step =
      Builds::script("asks",
                     "build-probe ask /run/agent.0 hello; build-probe ask /run/agent.0 "
                     "again; stat -c %a /run/agent.0");
  step.mounts = {{.kind = StepMountKind::SshAgent,
                  .target = "/run/agent.0",
                  .mode = 0600,
                  .agent_socket = path}};
  CHECK(builds.run(step).out == "HELLOAGAIN600\n");
  CHECK(listing(builds.layer("asks")) == "");
  BuildStep deaf = step;
  deaf.id = "deaf";
  deaf.mounts[0].agent_socket = builds.folder / "nobody";
  CHECK(builds.run(deaf).out == "600\n");
}

TEST_CASE("output of any length arrives whole") {
  Builds builds;
  builds.start("loud");
  size_t bytes = 0;
  const auto code =
      builds.session->run(Builds::script("loud", "dd if=/dev/zero bs=1M count=20 2> /dev/null"),
                          [&](int, std::string_view piece) {
                            bytes += piece.size();
                            return true;
                          });
  CHECK(code.value() == 0);
  CHECK(bytes == 20 * mebibyte);
}

TEST_CASE("cancel ends a step at once, and its machine can be removed") {
  Builds builds;
  builds.start("cancelled");
  std::thread canceller;
  const auto ended = builds.session->run(
      Builds::script("long", "echo up; sleep 1000"), [&](int, std::string_view) {
        canceller = std::thread([&] { builds.session->cancel(); });
        return true;
      });
  canceller.join();
  REQUIRE_FALSE(ended);
  CHECK(ended.error().code() == base::ErrorCode::Cancelled);
  CHECK(builds.driver->stop("cancelled", SIGTERM, patience_ms)->code == 0);
}

TEST_CASE("a machine that dies under a step is named with its last words") {
  Builds builds;
  builds.start("dies");
  const int64_t pid = builds.driver->list().value().at(0).pid;
  const auto ended = builds.session->run(Builds::script("long", "echo up; sleep 1000"),
                                         [&](int, std::string_view) {
                                           ::kill(static_cast<pid_t>(pid), SIGKILL);
                                           return true;
                                         });
  REQUIRE_FALSE(ended);
  CHECK(ended.error().to_string().find("the build machine has ended") != std::string::npos);
  CHECK(ended.error().to_string().find("last words") != std::string::npos);
}

TEST_CASE("a layer that no memory in the machine has room for passes through, in small pieces") {
  constexpr size_t large = 160 * mebibyte;  // the machine has 130, its kernel and agent included
  Builds builds;
  auto request = Builds::request("small");
  request.setup.service.memory_bytes = 64u << 20;
  builds.start(request);
  const base::UniqueFd marks = base::open_file("/proc/self/clear_refs", O_WRONLY).value();
  REQUIRE(base::write_all(marks.get(), "5"));  // the peak begins anew
  const int64_t before_kib = own_memory_kib("VmRSS");
  const auto added = builds.session->add_layer("large", large_archive(large));
  REQUIRE_MESSAGE(added, added.error().to_string());
  CHECK(builds.run("count", "wc -c < /large").out == fmt::format("{}\n", large));
  size_t bytes = 0;
  REQUIRE(builds.session->take_layer("large", [&](std::string_view piece) -> Result<> {
    bytes += piece.size();
    return {};
  }));
  CHECK(bytes == 512 + large + 1024);
  CHECK(own_memory_kib("VmHWM") - before_kib < 32 * 1024);
}

namespace {

/// A static program for 64-bit ARM that prints its greeting and ends with 5: written here by hand,
/// since a compiler for it would be a large package for a small file.
std::string arm64_program() {
  const std::string greeting = "this is arm64\n";
  constexpr uint64_t load_address = 0x400000;
  std::string elf(64 + 56, '\0');
  const auto put = [&](size_t at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; ++i) elf[at + i] = static_cast<char>(value >> (8 * i));
  };
  elf.replace(0, 7,
              "\x7f"
              "ELF\x02\x01\x01");
  put(16, 2, 2);    // an executable
  put(18, 183, 2);  // for AArch64
  put(20, 1, 4);
  put(24, load_address + elf.size(), 8);  // entry
  put(32, 64, 8);                         // program headers
  put(52, 64, 2);
  put(54, 56, 2);
  put(56, 1, 2);
  const uint32_t code[] = {
      0xd2800020,                                                // mov x0, #1
      0x100000e1,                                                // adr x1, greeting
      0xd2800002 | static_cast<uint32_t>(greeting.size() << 5),  // mov x2, #size
      0xd2800808,                                                // mov x8, #64 (write)
      0xd4000001,                                                // svc #0
      0xd28000a0,                                                // mov x0, #5
      0xd2800ba8,                                                // mov x8, #93 (exit)
      0xd4000001};                                               // svc #0
  const size_t total = elf.size() + sizeof code + greeting.size();
  put(64, 1, 4);  // PT_LOAD
  put(68, 5, 4);  // readable, executable
  put(80, load_address, 8);
  put(88, load_address, 8);
  put(96, total, 8);
  put(104, total, 8);
  put(112, 0x10000, 8);
  elf.append(reinterpret_cast<const char*>(code), sizeof code);
  return elf + greeting;
}

}  // namespace

TEST_CASE("programs of another architecture run, in steps and through scripts") {
  Builds builds;
  auto request = Builds::request("foreign");
  request.setup.image.architecture = "arm64";
  builds.start(request);
  builds.add("program", make_tar({{.path = "speak", .content = arm64_program(), .mode = 0755}}));
  BuildStep step = Builds::script("direct", "");
  step.arguments = {"/speak"};
  const auto direct = builds.run(step);
  CHECK(direct.out == "this is arm64\n");
  CHECK(direct.code == 5);
  step = Builds::script("script", "/speak; echo $?");
  step.user = "1000";
  CHECK(builds.run(step).out == "this is arm64\n5\n");
}

TEST_CASE("an architecture without an emulator is refused before anything is started") {
  Builds builds;
  auto request = Builds::request("unknown");
  request.setup.image.architecture = "pdp11";
  REQUIRE(builds.driver->create(request.setup));
  const auto refused = builds.driver->start(request);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string() ==
        "start container 'unknown': images for 'pdp11' do not run on this machine");
}

TEST_CASE("a container that is no build machine has no build session") {
  Builds builds;
  builds.start("machine");
  reconciler::ExecRequest exec;
  exec.arguments = {"/bin/true"};
  const auto refused = builds.driver->exec("machine", exec);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("build machine") != std::string::npos);
}
