/// The real program behind a real kernel's FUSE, as in a guest: `container-files` on one end of a
/// stream, /dev/fuse on the other, and ordinary system calls in between.

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/process.h"
#include "files/message.h"

namespace {

/// Carries messages between /dev/fuse and the server's stream, as the agent does.
void pump(int device, int stream) {
  std::vector<char> request(files::request_bytes_max + 4096);
  std::string replies;
  for (;;) {
    pollfd waited[2] = {{.fd = device, .events = POLLIN, .revents = 0},
                        {.fd = stream, .events = POLLIN, .revents = 0}};
    if (::poll(waited, 2, -1) < 0) continue;
    if (waited[0].revents & (POLLERR | POLLHUP) || waited[1].revents & POLLHUP) return;
    if (waited[0].revents & POLLIN) {
      const ssize_t size = ::read(device, request.data(), request.size());
      if (size < 0 && errno == ENODEV) return;
      if (size > 0 && !base::write_all(stream, {request.data(), static_cast<size_t>(size)})) return;
    }
    if (waited[1].revents & POLLIN) {
      const auto size = base::read_some(stream, request);
      if (!size || *size == 0) return;
      replies.append(request.data(), *size);
    }
    uint32_t length = 0;
    while (replies.size() >= sizeof length &&
           (std::memcpy(&length, replies.data(), sizeof length), replies.size() >= length)) {
      [[maybe_unused]] const ssize_t written = ::write(device, replies.data(), length);
      replies.erase(0, length);
    }
  }
}

class Mounted {
 public:
  Mounted() {
    REQUIRE(::mkdtemp(root.data()) != nullptr);
    for (const char* folder : {"/share", "/locked", "/mnt"})
      REQUIRE(base::make_directories(root + folder));
    REQUIRE(base::write_file_atomically(root + "/locked/file", "fixed"));
    REQUIRE(base::write_file_atomically(root + "/single", "one file"));
    start_server();
    mount();
    pump_ = std::thread([this] { pump(device_.get(), stream_.get()); });
  }
  ~Mounted() {
    CHECK(::umount2(mnt().c_str(), MNT_DETACH) == 0);
    ::shutdown(stream_.get(), SHUT_RDWR);
    pump_.join();
    CHECK(base::await_process(server_pidfd_.get(), server_.pid, base::Deadline::in_ms(5'000)));
    CHECK(base::remove_tree(root));
  }
  std::string mnt() const { return root + "/mnt"; }

  std::string root = "/tmp/container-files-mount-XXXXXX";

 private:
  void start_server() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    stream_.reset(ends[0]);
    const base::UniqueFd theirs(ends[1]);
    base::Pipe config = base::make_pipe().value();
    const std::string json = fmt::format(
        R"({{"shares": [{{"name": "data", "path": "{0}/share"}},
            {{"name": "fixed", "path": "{0}/locked", "read_only": true}},
            {{"name": "one", "path": "{0}/single"}}], "mapped_ownership": {1}}})",
        root, ::geteuid() == 0 ? "false" : "true");
    REQUIRE(base::write_all(config.writer.get(), json));
    config.writer.reset();
    const auto started =
        base::spawn({.arguments = {CONTAINER_BINARY_DIR "/bin/container-files", "--socket-fd", "3",
                                   "--config-fd", "4"},
                     .environment = {},
                     .descriptors = {{theirs.get(), 3}, {config.reader.get(), 4}, {2, 2}}});
    REQUIRE(started);
    server_ = *started;
    server_pidfd_ = base::open_process(server_).value();
  }
  void mount() {
    // Nobody else shall see the mount, and it goes with us.
    REQUIRE(::unshare(CLONE_NEWNS) == 0);
    REQUIRE(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    device_.reset(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    REQUIRE_MESSAGE(device_, "this test needs /dev/fuse and root");
    const std::string options = fmt::format(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device_.get());
    REQUIRE(::mount("container", mnt().c_str(), "fuse", 0, options.c_str()) == 0);
  }

  base::UniqueFd stream_;
  base::UniqueFd device_;
  base::UniqueFd server_pidfd_;
  base::ProcessIdentity server_;
  std::thread pump_;
};

std::string content_of(const std::string& path) { return base::read_file(path, 64 << 20).value(); }

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* const opened = ::opendir(folder.c_str());
  REQUIRE(opened != nullptr);
  while (const dirent* entry = ::readdir(opened))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  ::closedir(opened);
  return names;
}

mode_t mode_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::lstat(path.c_str(), &info) == 0);
  return info.st_mode;
}

}  // namespace

TEST_CASE("a mounted share behaves as a folder") {
  const Mounted share;
  const std::string data = share.mnt() + "/data";

  SUBCASE("a large file written there is the host's, byte for byte") {
    std::string large(5'000'003, '\0');
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 >> 3);
    REQUIRE(base::write_file_atomically(data + "/large", large, 0640));
    CHECK(content_of(share.root + "/share/large") == large);
    CHECK(content_of(data + "/large") == large);
    CHECK((mode_of(share.root + "/share/large") & 07777) == 0640);
  }
  SUBCASE("a folder of many entries is listed whole") {
    for (int i = 0; i < 3'000; ++i)
      REQUIRE(base::open_file(fmt::format("{}/share/entry-{}", share.root, i), O_CREAT | O_WRONLY));
    CHECK(names_in(data).size() == 3'000);
  }
  SUBCASE("links, renames, sockets' names and times work") {
    REQUIRE(base::write_file_atomically(data + "/a", "a"));
    CHECK(::link((data + "/a").c_str(), (data + "/hard").c_str()) == 0);
    CHECK(::symlink("a", (data + "/soft").c_str()) == 0);
    CHECK(content_of(data + "/soft") == "a");
    CHECK(::rename((data + "/a").c_str(), (data + "/b").c_str()) == 0);
    CHECK(content_of(data + "/hard") == "a");
    CHECK(::mkfifo((data + "/fifo").c_str(), 0600) == 0);
    CHECK(S_ISFIFO(mode_of(share.root + "/share/fifo")));
    const timespec times[2] = {{.tv_sec = 1'000, .tv_nsec = 5}, {.tv_sec = 2'000, .tv_nsec = 7}};
    CHECK(::utimensat(AT_FDCWD, (data + "/b").c_str(), times, 0) == 0);
    struct stat info {};
    REQUIRE(::stat((share.root + "/share/b").c_str(), &info) == 0);
    CHECK(info.st_mtim.tv_sec == 2'000);
    CHECK(info.st_mtim.tv_nsec == 7);
  }
  SUBCASE("owners and modes are kept") {
    REQUIRE(base::write_file_atomically(data + "/owned", "x"));
    CHECK(::chown((data + "/owned").c_str(), 1'234, 2'345) == 0);
    CHECK(::chmod((data + "/owned").c_str(), 04711) == 0);
    struct stat info {};
    REQUIRE(::stat((data + "/owned").c_str(), &info) == 0);
    CHECK(info.st_uid == 1'234);
    CHECK(info.st_gid == 2'345);
    CHECK((info.st_mode & 07777) == 04711);
  }
  SUBCASE("a file can be mapped, changed through the mapping, cut and grown") {
    REQUIRE(base::write_file_atomically(data + "/mapped", std::string(8'192, 'a')));
    const base::UniqueFd file = base::open_file(data + "/mapped", O_RDWR).value();
    void* const mapping = ::mmap(nullptr, 8'192, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    REQUIRE(mapping != MAP_FAILED);
    static_cast<char*>(mapping)[4'096] = 'b';
    CHECK(::msync(mapping, 8'192, MS_SYNC) == 0);
    CHECK(::munmap(mapping, 8'192) == 0);
    CHECK(content_of(share.root + "/share/mapped")[4'096] == 'b');
    CHECK(::ftruncate(file.get(), 5) == 0);
    CHECK(content_of(share.root + "/share/mapped") == "aaaaa");
  }
  SUBCASE("user attributes cross, and removing a tree leaves nothing") {
    REQUIRE(base::make_directories(data + "/tree/deep/deeper"));
    REQUIRE(base::write_file_atomically(data + "/tree/deep/file", "x"));
    CHECK(::setxattr((data + "/tree/deep/file").c_str(), "user.note", "hi", 2, 0) == 0);
    char value[8];
    CHECK(::getxattr((share.root + "/share/tree/deep/file").c_str(), "user.note", value,
                     sizeof value) == 2);
    CHECK(base::remove_tree(data + "/tree"));
    CHECK(names_in(share.root + "/share").empty());
  }
  SUBCASE("a share of one file is that file and no more") {
    CHECK(content_of(share.mnt() + "/one") == "one file");
    const base::UniqueFd file = base::open_file(share.mnt() + "/one", O_WRONLY).value();
    CHECK(base::write_all(file.get(), "ONE"));
    CHECK(content_of(share.root + "/single") == "ONE file");
  }
  SUBCASE("a read-only share cannot be changed even by root") {
    CHECK(content_of(share.mnt() + "/fixed/file") == "fixed");
    CHECK(::unlink((share.mnt() + "/fixed/file").c_str()) != 0);
    CHECK_FALSE(base::open_file(share.mnt() + "/fixed/new", O_CREAT | O_WRONLY));
    CHECK(content_of(share.root + "/locked/file") == "fixed");
  }
}
