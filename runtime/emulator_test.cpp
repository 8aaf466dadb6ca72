#include "runtime/emulator.h"

#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"

namespace fs = std::filesystem;

TEST_CASE("what the processor runs by itself needs no emulator") {
  for (const char* native : {"", "amd64", "386"})
    CHECK_FALSE(runtime::find_emulator(native, "/no/such/folder").value());
}

TEST_CASE("an emulator is found by its own name of the architecture") {
  std::string folder = (fs::temp_directory_path() / "emulators-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  REQUIRE(base::write_file_atomically(folder + "/qemu-aarch64-static", "program"));
  CHECK(runtime::find_emulator("arm64", folder).value() == folder + "/qemu-aarch64-static");
  const auto missing = runtime::find_emulator("s390x", folder);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code() == base::ErrorCode::Unsupported);
  CHECK(missing.error().to_string().find("qemu-user-static") != std::string::npos);
  fs::remove_all(folder);
}

TEST_CASE("an architecture nobody emulates is refused by name") {
  const auto refused = runtime::find_emulator("pdp11", "/usr/bin");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string() == "images for 'pdp11' do not run on this machine");
}
