#include "runtime/zygote/replaced.h"

#include <array>
#include <string>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"

namespace {

constexpr uint64_t disk_bytes = 64;

base::UniqueFd file_with(const std::string& content) {
  base::UniqueFd file(::memfd_create("content", MFD_CLOEXEC));
  REQUIRE(::write(file.get(), content.data(), content.size()) ==
          static_cast<ssize_t>(content.size()));
  return file;
}

std::string read_at(int fd, size_t bytes, off_t at) {
  std::string text(bytes, '?');
  const ssize_t count = ::pread64(fd, text.data(), bytes, at);
  text.resize(count < 0 ? 0 : static_cast<size_t>(count));
  return text;
}

/// "....AAAA....BB\0\0....", each dot a byte of the table's own.
struct Joined {
  base::UniqueFd disk = file_with(std::string(disk_bytes, '.'));
  Joined() {
    runtime::join_image(disk.get(), {{.first_byte = 4, .bytes = 4, .descriptor = copy("AAAA")},
                                     {.first_byte = 12, .bytes = 4, .descriptor = copy("BB")}});
  }
  ~Joined() { runtime::join_image(-1, {}); }
  static int copy(const std::string& content) { return ::dup(file_with(content).get()); }
};

}  // namespace

TEST_CASE("an image disk is read as one, whatever pieces a read crosses") {
  const Joined joined;
  const std::string whole = "....AAAA....BB" + std::string(2, '\0') + std::string(48, '.');
  for (size_t at = 0; at <= disk_bytes; ++at)
    for (size_t bytes = 0; bytes <= disk_bytes; ++bytes) {
      CAPTURE(at);
      CAPTURE(bytes);
      REQUIRE(read_at(joined.disk.get(), bytes, static_cast<off_t>(at)) == whole.substr(at, bytes));
    }
}

TEST_CASE("an image disk is read into several buffers") {
  const Joined joined;
  std::array<char, 3> first{};
  std::array<char, 8> second{};
  const std::array<iovec, 2> pieces{iovec{first.data(), first.size()},
                                    iovec{second.data(), second.size()}};
  CHECK(::preadv64(joined.disk.get(), pieces.data(), 2, 2) == 11);
  CHECK(std::string(first.data(), first.size()) == "..A");
  CHECK(std::string(second.data(), second.size()) == "AAA....B");
  CHECK(::preadv64(joined.disk.get(), pieces.data(), 2, 60) == 4);
}

TEST_CASE("a copy of the disk's descriptor is the disk, another file is itself") {
  const Joined joined;
  const base::UniqueFd copy(::dup(joined.disk.get()));
  CHECK(read_at(copy.get(), 6, 2) == "..AAAA");
  const base::UniqueFd other = file_with("other");
  CHECK(read_at(other.get(), 8, 1) == "ther");
  CHECK(read_at(-1, 8, 0).empty());
}

TEST_CASE("a part that cannot be read is an error, not another's content") {
  const base::UniqueFd disk = file_with(std::string(disk_bytes, '.'));
  runtime::join_image(disk.get(), {{.first_byte = 4, .bytes = 4, .descriptor = -1}});
  char text[4];
  CHECK(::pread64(disk.get(), text, sizeof text, 4) == -1);
  CHECK(read_at(disk.get(), 8, 0) == "....");  // As far as it can be read.
  runtime::join_image(-1, {});
}
