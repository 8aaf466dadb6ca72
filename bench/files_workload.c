/* What programs do to files of a shared folder, timed: files_workload FOLDER.
 *
 * As the first process of a guest it first mounts what its kernel's command line names
 * (`share=9p` or `share=virtiofs`) and switches the guest off afterwards. Prints lines of
 * `figure NAME VALUE`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { files = 500, small_bytes = 4096, syncs = 300, large_mib = 64 };
static char buffer[1 << 20];

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void fail(const char* what) {
  printf("failed %s: %s\n", what, strerror(errno));
  fflush(stdout);
  if (getpid() == 1) reboot(RB_AUTOBOOT);
  exit(1);
}

static void file_name(char* name, const char* folder, int number) {
  snprintf(name, 4096, "%s/small-%d", folder, number);
}

static void write_small(const char* folder) {
  char name[4096];
  for (int i = 0; i < files; ++i) {
    file_name(name, folder, i);
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0 || write(fd, buffer, small_bytes) != small_bytes) fail("write");
    close(fd);
  }
}

static void look_at_small(const char* folder) {
  char name[4096];
  struct stat facts;
  for (int i = 0; i < files; ++i) {
    file_name(name, folder, i);
    if (stat(name, &facts) != 0) fail("stat");
  }
}

static void read_small(const char* folder) {
  char name[4096];
  for (int i = 0; i < files; ++i) {
    file_name(name, folder, i);
    int fd = open(name, O_RDONLY);
    if (fd < 0 || read(fd, buffer, small_bytes) != small_bytes) fail("read");
    close(fd);
  }
}

static void remove_small(const char* folder) {
  char name[4096];
  for (int i = 0; i < files; ++i) {
    file_name(name, folder, i);
    if (unlink(name) != 0) fail("unlink");
  }
}

static void write_synced(const char* folder) {
  char name[4096];
  snprintf(name, sizeof name, "%s/synced", folder);
  int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd < 0) fail("open");
  for (int i = 0; i < syncs; ++i)
    if (pwrite(fd, buffer, 4096, (off_t)(i * 37 % 256) * 4096) != 4096 || fdatasync(fd) != 0)
      fail("sync");
  close(fd);
  unlink(name);
}

static void write_large(const char* folder) {
  char name[4096];
  snprintf(name, sizeof name, "%s/large", folder);
  int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd < 0) fail("open");
  for (int i = 0; i < large_mib; ++i)
    if (write(fd, buffer, sizeof buffer) != sizeof buffer) fail("write");
  if (fsync(fd) != 0) fail("sync");
  close(fd);
}

static void read_large(const char* folder) {
  char name[4096];
  snprintf(name, sizeof name, "%s/large", folder);
  int fd = open(name, O_RDONLY);
  if (fd < 0) fail("open");
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  for (int i = 0; i < large_mib; ++i)
    if (read(fd, buffer, sizeof buffer) != (ssize_t)sizeof buffer) fail("read");
  close(fd);
  unlink(name);
}

static void timed(const char* name, void (*work)(const char*), const char* folder, double parts) {
  double begun = now_ms();
  work(folder);
  printf("figure %s %.4f\n", name, (now_ms() - begun) / parts);
}

static void workload(const char* folder) {
  timed("create_ms", write_small, folder, files);
  timed("stat_ms", look_at_small, folder, files);
  timed("read_ms", read_small, folder, files);
  timed("unlink_ms", remove_small, folder, files);
  timed("sync_ms", write_synced, folder, syncs);
  timed("write_ms_per_mib", write_large, folder, large_mib);
  timed("read_ms_per_mib", read_large, folder, large_mib);
}

/* Loads NAME.ko, wherever below `folder` it is; one that is built in is nowhere. */
static void load(const char* folder, const char* name) {
  DIR* list = opendir(folder);
  if (!list) return;
  for (struct dirent* entry; (entry = readdir(list));) {
    char path[4096];
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    size_t length = strlen(name);
    if (entry->d_type == DT_DIR) load(path, name);
    if (strncmp(entry->d_name, name, length) == 0 && !strcmp(entry->d_name + length, ".ko")) {
      int fd = open(path, O_RDONLY);
      if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) fail(path);
      close(fd);
    }
  }
  closedir(list);
}

static void be_a_guest(void) {
  mkdir("/proc", 0755), mkdir("/dev", 0755), mkdir("/modules", 0755), mkdir("/share", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  if (mount("/dev/vda", "/modules", "erofs", MS_RDONLY, NULL) != 0) fail("modules");
  FILE* line = fopen("/proc/cmdline", "r");
  if (!line || !fgets(buffer, 4096, line)) fail("command line");
  if (strstr(buffer, "share=9p")) {
    const char* modules[] = {"netfs", "9pnet", "9pnet_virtio", "9p"};
    for (int i = 0; i < 4; ++i) load("/modules", modules[i]);
    if (mount("share", "/share", "9p", 0, "trans=virtio,version=9p2000.L,msize=524288,cache=none"))
      fail("mount");
  } else {
    load("/modules", "virtiofs");
    if (mount("share", "/share", "virtiofs", 0, NULL)) fail("mount");
  }
  workload("/share");
  printf("end\n");
  fflush(stdout);
  sync();
  reboot(RB_AUTOBOOT);
}

int main(int count, char** values) {
  if (getpid() == 1 && count < 2) be_a_guest();
  if (count != 2) return 64;
  workload(values[1]);
  return 0;
}
