# Every library, once, as an imported target. The packages and their reasons: tools/packages.txt.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(uv REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(yamlcpp REQUIRED IMPORTED_TARGET yaml-cpp)
pkg_check_modules(sqlite REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(microhttpd REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(nghttp2 REQUIRED IMPORTED_TARGET libnghttp2)
# Its archive file: the linker takes the readers we use. As a shared library it brings libxml2 and
# ICU for formats of others, 1.5 MB of the daemon's memory.
find_library(LIBARCHIVE_ARCHIVE libarchive.a REQUIRED)
find_library(LIBLZMA_LIBRARY lzma REQUIRED)
find_library(LIBBZ2_LIBRARY bz2 REQUIRED)
add_library(libarchive INTERFACE)
target_link_libraries(libarchive INTERFACE
  ${LIBARCHIVE_ARCHIVE} ${LIBLZMA_LIBRARY} ${LIBBZ2_LIBRARY})
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(crypto REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(ext2fs REQUIRED IMPORTED_TARGET ext2fs com_err)
find_library(SLIRP_LIBRARY slirp REQUIRED)  # its .pc file wants glib headers that we do not need
pkg_check_modules(cap REQUIRED IMPORTED_TARGET libcap)
find_library(HTTP_PARSER_LIBRARY http_parser REQUIRED)
pkg_check_modules(nftables REQUIRED IMPORTED_TARGET libnftables)
pkg_check_modules(curl REQUIRED libcurl)  # its headers: see image/registry/curl_on_demand.h
