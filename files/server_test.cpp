#include "files/server.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/file.h"
#include "files/message.h"

using namespace files;

namespace {

/// A folder with one writable and one read-only share, and a guest that speaks raw FUSE.
struct Guest {
  Guest() {
    REQUIRE(::mkdtemp(root.data()) != nullptr);
    for (const char* folder : {"/rw", "/ro", "/outside"})
      REQUIRE(base::make_directories(root + folder));
    for (const char* file : {"/rw/file", "/ro/file", "/outside/secret"})
      REQUIRE(base::write_file_atomically(root + file, "content"));
    auto made =
        FileServer::create({.shares = {{"rw", root + "/rw", false}, {"ro", root + "/ro", true}},
                            .mapped_ownership = ::geteuid() != 0});
    REQUIRE(made);
    server = std::move(*made);
  }
  ~Guest() { CHECK(base::remove_tree(root)); }

  std::string ask(uint32_t opcode, uint64_t node, const std::string& body) {
    fuse_in_header header{};
    header.len = static_cast<uint32_t>(sizeof header + body.size());
    header.opcode = opcode;
    header.unique = 7;
    header.nodeid = node;
    return server->handle(bytes_of(header) + body).value_or("");
  }
  /// The errno a request is answered with.
  int error_of(const std::string& reply) {
    fuse_out_header header{};
    REQUIRE(reply.size() >= sizeof header);
    std::memcpy(&header, reply.data(), sizeof header);
    CHECK(header.unique == 7);
    CHECK(header.len == reply.size());
    return -header.error;
  }
  template <class Struct>
  Struct body_of(const std::string& reply) {
    Struct value{};
    REQUIRE(error_of(reply) == 0);
    REQUIRE(reply.size() >= sizeof(fuse_out_header) + sizeof value);
    std::memcpy(&value, reply.data() + sizeof(fuse_out_header), sizeof value);
    return value;
  }
  static std::string text(const std::string& name) { return name + '\0'; }
  uint64_t lookup(uint64_t parent, const std::string& name) {
    return body_of<fuse_entry_out>(ask(FUSE_LOOKUP, parent, text(name))).nodeid;
  }
  int lookup_error(uint64_t parent, const std::string& name) {
    return error_of(ask(FUSE_LOOKUP, parent, text(name)));
  }
  int open_error(uint64_t node, uint32_t flags) {
    return error_of(ask(FUSE_OPEN, node, bytes_of(fuse_open_in{.flags = flags, .open_flags = 0})));
  }

  std::string root = "/tmp/container-files-test-XXXXXX";
  std::unique_ptr<FileServer> server;
};

}  // namespace

TEST_CASE("a share whose folder is missing is named") {
  const auto made = FileServer::create({.shares = {{"data", "/nonexistent/folder", false}}});
  REQUIRE_FALSE(made);
  CHECK(made.error().code() == base::ErrorCode::NotFound);
  CHECK(made.error().to_string().find("share 'data'") != std::string::npos);
}

TEST_CASE("the root holds the shares and nothing else") {
  Guest guest;
  CHECK(guest.lookup(FUSE_ROOT_ID, "rw") != 0);
  CHECK(guest.lookup_error(FUSE_ROOT_ID, "outside") == ENOENT);
  CHECK(guest.error_of(guest.ask(
            FUSE_MKDIR, FUSE_ROOT_ID,
            bytes_of(fuse_mkdir_in{.mode = 0755, .umask = 0}) + Guest::text("new"))) == EROFS);
}

TEST_CASE("no name leads out of a share") {
  Guest guest;
  const uint64_t share = guest.lookup(FUSE_ROOT_ID, "rw");
  for (const char* name : {"..", ".", "", "../outside/secret", "a/b", "/etc/passwd"}) {
    CAPTURE(name);
    CHECK(guest.lookup_error(share, name) == EINVAL);
  }
  CHECK(guest.lookup_error(share, std::string(300, 'a')) == EINVAL);
  CHECK(guest.error_of(guest.ask(FUSE_LOOKUP, share, "no-terminator")) == EINVAL);
}

TEST_CASE("a symbolic link is an object of its own: never followed, never opened") {
  Guest guest;
  REQUIRE(::symlink((guest.root + "/outside/secret").c_str(), (guest.root + "/rw/link").c_str()) ==
          0);
  const uint64_t link = guest.lookup(guest.lookup(FUSE_ROOT_ID, "rw"), "link");

  CHECK(guest.open_error(link, O_RDONLY) == EACCES);
  CHECK(guest.lookup_error(link, "secret") == ENOTDIR);
  const std::string target = guest.ask(FUSE_READLINK, link, "");
  CHECK(target.substr(sizeof(fuse_out_header)) == guest.root + "/outside/secret");
}

TEST_CASE("a pipe of the host is not opened for the guest") {
  Guest guest;
  REQUIRE(::mkfifo((guest.root + "/rw/pipe").c_str(), 0666) == 0);
  const uint64_t pipe = guest.lookup(guest.lookup(FUSE_ROOT_ID, "rw"), "pipe");
  CHECK(guest.open_error(pipe, O_RDWR) == EACCES);
}

TEST_CASE("the guest cannot make a device node") {
  Guest guest;
  const uint64_t share = guest.lookup(FUSE_ROOT_ID, "rw");
  const fuse_mknod_in node{.mode = S_IFBLK | 0666, .rdev = 0x0801, .umask = 0, .padding = 0};
  CHECK(guest.error_of(guest.ask(FUSE_MKNOD, share, bytes_of(node) + Guest::text("disk"))) ==
        EPERM);
}

TEST_CASE("a read-only share refuses every change, whatever the guest's mount says") {
  Guest guest;
  const uint64_t share = guest.lookup(FUSE_ROOT_ID, "ro");
  const uint64_t file = guest.lookup(share, "file");
  const uint64_t other = guest.lookup(FUSE_ROOT_ID, "rw");
  const auto refused = [&](uint32_t opcode, uint64_t node, const std::string& body) {
    CAPTURE(opcode);
    CHECK(guest.error_of(guest.ask(opcode, node, body)) == EROFS);
  };
  CHECK(guest.open_error(file, O_RDONLY) == 0);
  CHECK(guest.open_error(file, O_RDWR) == EROFS);
  CHECK(guest.open_error(file, O_WRONLY | O_TRUNC) == EROFS);
  refused(FUSE_CREATE, share,
          bytes_of(fuse_create_in{.flags = O_RDWR, .mode = 0644, .umask = 0, .open_flags = 0}) +
              Guest::text("new"));
  refused(FUSE_UNLINK, share, Guest::text("file"));
  refused(FUSE_RENAME, share,
          bytes_of(fuse_rename_in{.newdir = other}) + Guest::text("file") + Guest::text("taken"));
  refused(FUSE_SYMLINK, share, Guest::text("l") + Guest::text("t"));
  fuse_setattr_in cut{};
  cut.valid = FATTR_SIZE;
  refused(FUSE_SETATTR, file, bytes_of(cut));
  CHECK(base::read_file(guest.root + "/ro/file", 100).value() == "content");
}

TEST_CASE("a read-only handle cannot write, and an unknown one is refused") {
  Guest guest;
  const uint64_t file = guest.lookup(guest.lookup(FUSE_ROOT_ID, "rw"), "file");
  const auto opened = guest.body_of<fuse_open_out>(
      guest.ask(FUSE_OPEN, file, bytes_of(fuse_open_in{.flags = O_RDONLY, .open_flags = 0})));
  fuse_write_in write{};
  write.fh = opened.fh;
  write.size = 1;
  CHECK(guest.error_of(guest.ask(FUSE_WRITE, file, bytes_of(write) + "x")) == EBADF);
  write.fh = 12'345;
  CHECK(guest.error_of(guest.ask(FUSE_WRITE, file, bytes_of(write) + "x")) == EBADF);
}

TEST_CASE("our own attribute for owners is neither shown nor settable") {
  Guest guest;
  const uint64_t file = guest.lookup(guest.lookup(FUSE_ROOT_ID, "rw"), "file");
  const uint32_t size_and_flags[2] = {3, 0};
  const std::string head(reinterpret_cast<const char*>(size_and_flags), sizeof size_and_flags);
  const auto set = [&](const char* name) {
    return guest.error_of(guest.ask(FUSE_SETXATTR, file, head + Guest::text(name) + "0:0"));
  };
  CHECK(set("user.container.owner") == ENOTSUP);
  CHECK(set("security.capability") == ENOTSUP);
  CHECK(set("trusted.overlay.opaque") == ENOTSUP);
}

TEST_CASE("what the guest forgets is forgotten, however often it says so") {
  Guest guest;
  const uint64_t share = guest.lookup(FUSE_ROOT_ID, "rw");
  const uint64_t file = guest.lookup(share, "file");
  CHECK(guest.ask(FUSE_FORGET, file, bytes_of(fuse_forget_in{.nlookup = ~0ULL})).empty());
  CHECK(guest.ask(FUSE_FORGET, file, bytes_of(fuse_forget_in{.nlookup = 1})).empty());
  CHECK(guest.open_error(file, O_RDONLY) == ENOENT);
  CHECK(guest.lookup(share, "file") != file);
}

TEST_CASE("whatever bytes a guest sends, the server answers or ignores them, and lives") {
  Guest guest;
  std::mt19937 random(20'261'124);
  const uint64_t share = guest.lookup(FUSE_ROOT_ID, "rw");
  for (int round = 0; round < 20'000; ++round) {
    std::string body(random() % 96, '\0');
    for (char& byte : body) byte = static_cast<char>(random() % 4 == 0 ? random() : random() % 3);
    const uint32_t opcode = static_cast<uint32_t>(random() % 56);
    if (opcode == FUSE_FALLOCATE) continue;  // Would rightly fill the disk.
    guest.ask(opcode, random() % 2 ? share : random() % 6, body);
  }
  CHECK(guest.server->handle("short") == std::nullopt);
  CHECK(base::read_file(guest.root + "/outside/secret", 100).value() == "content");
  CHECK(base::read_file(guest.root + "/ro/file", 100).value() == "content");
}
