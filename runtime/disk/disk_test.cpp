#include <cstdlib>
#include <string>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/file.h"
#include "base/process.h"
#include "runtime/disk/image_disk.h"
#include "runtime/disk/scratch_disk.h"

namespace {

struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/disk-test-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { (void)base::remove_tree(path); }
};

uint64_t used_bytes(const std::string& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

}  // namespace

TEST_CASE("a scratch disk is sound ext4, and uses little of its size") {
  const Folder folder;
  const std::string disk = folder.path + "/scratch.img";
  REQUIRE(runtime::make_scratch_template(disk, runtime::scratch_disk_bytes));

  const auto checked =
      base::run_process({"/sbin/e2fsck", "-f", "-n", disk}, base::Deadline::in_ms(60'000));

  REQUIRE(checked);
  INFO(checked->output);
  CHECK(checked->exit_code == 0);
  CHECK(used_bytes(disk) < (64u << 20));
}

TEST_CASE("a clone has the same bytes and the same holes") {
  const Folder folder;
  const std::string disk = folder.path + "/a";
  const std::string copy = folder.path + "/b";
  REQUIRE(runtime::make_scratch_template(disk, 1u << 30));

  REQUIRE(runtime::clone_disk(disk, copy));

  const auto compared =
      base::run_process({"/usr/bin/cmp", disk, copy}, base::Deadline::in_ms(60'000));
  REQUIRE(compared);
  CHECK(compared->exit_code == 0);
  CHECK(used_bytes(copy) <= used_bytes(disk) + (1u << 20));
}

TEST_CASE("partitions follow each other on whole mebibytes") {
  const auto placed = runtime::place_partitions({4096, 3u << 20, 512}).value();
  REQUIRE(placed.size() == 3);
  CHECK(placed[0].first_sector == 2048);
  CHECK(placed[1].first_sector == 4096);
  CHECK(placed[2].first_sector == 4096 + 3 * 2048);
  CHECK(placed[1].sectors == 3 * 2048);
}

TEST_CASE("files that do not fit the disk are refused") {
  const auto refused = runtime::place_partitions({runtime::image_disk_bytes});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == base::ErrorCode::NoSpace);
}

TEST_CASE("the descriptor covers every sector of the disk once") {
  const auto placed = runtime::place_partitions({4096, 1u << 20}).value();
  const std::string text = runtime::vmdk_descriptor(placed, 2, {10, 11});
  CHECK(text.find("RW 2048 FLAT \"/dev/fdset/2\" 0\n"
                  "RW 8 FLAT \"/dev/fdset/10\" 0\n"
                  "RW 2040 FLAT \"/dev/fdset/2\" 2056\n"
                  "RW 2048 FLAT \"/dev/fdset/11\" 0\n"
                  "RW 2147477504 FLAT \"/dev/fdset/2\" 6144\n") != std::string::npos);
  CHECK(text.find("\n\n") == std::string::npos);  // QEMU would count the next extent twice
}

TEST_CASE("both partition tables of an image disk carry sums another program agrees with") {
  const Folder folder;
  const std::string layer = folder.path + "/layer";
  REQUIRE(base::write_file_atomically(layer, std::string(8192, 'x')));
  const auto disk = runtime::open_image_disk({layer, layer});
  REQUIRE(disk);
  const std::string program = R"(
import binascii, struct, sys
disk = open(sys.argv[1], 'rb')
disk.seek(0, 2)
last = disk.tell() // 512 - 1
for at, other in ((1, last), (last, 1)):
    disk.seek(at * 512)
    head = disk.read(92)
    assert head[:8] == b'EFI PART'
    total, mine, backup = struct.unpack('<I4xQQ', head[16:40])
    assert (mine, backup) == (at, other)
    assert total == binascii.crc32(head[:16] + bytes(4) + head[20:])
    where, count, size, table = struct.unpack('<QIII', head[72:92])
    disk.seek(where * 512)
    entries = disk.read(count * size)
    assert table == binascii.crc32(entries)
    print(struct.unpack('<QQ', entries[32:48]), struct.unpack('<QQ', entries[160:176]))
)";

  const auto checked =
      base::run_process({"/usr/bin/python3", "-c", program,
                         fmt::format("/proc/{}/fd/{}", ::getpid(), disk->table.get())},
                        base::Deadline::in_ms(10'000));

  REQUIRE(checked);
  CHECK(checked->output == "(2048, 2063) (4096, 4111)\n(2048, 2063) (4096, 4111)\n");
}

TEST_CASE("a layer that is no whole number of sectors is refused, and says what to do") {
  const Folder folder;
  REQUIRE(base::write_file_atomically(folder.path + "/layer", "short"));
  const auto refused = runtime::open_image_disk({folder.path + "/layer"});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("pull the image again") != std::string::npos);
}
