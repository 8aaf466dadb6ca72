/* The first process of guest_boot_test.py: looks at what the kernel gives a VM, says it on the
 * console one fact a line, and ends the VM. Linked statically, without the agent, so that the
 * kernel is judged on its own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

enum { partitions_max = 128 };

static double seconds_since_boot(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int exists(const char* path) { return access(path, F_OK) == 0; }

static int count_partitions(void) {
  int count = 0;
  char path[64];
  for (int i = 1; i <= partitions_max; ++i) {
    snprintf(path, sizeof path, "/dev/vda%d", i);
    count += exists(path);
  }
  return count;
}

/* Mounts partition `number` as EROFS and prints the text of its file "name". */
static void report_partition(int number) {
  char device[64], folder[64], file[96], text[64] = "";
  snprintf(device, sizeof device, "/dev/vda%d", number);
  snprintf(folder, sizeof folder, "/mnt/%d", number);
  snprintf(file, sizeof file, "%s/name", folder);
  mkdir(folder, 0755);
  if (mount(device, folder, "erofs", MS_RDONLY, 0) != 0) {
    printf("probe partition %d error %s\n", number, strerror(errno));
    return;
  }
  int opened = open(file, O_RDONLY);
  ssize_t length = opened < 0 ? 0 : read(opened, text, sizeof text - 1);
  text[length > 0 ? length : 0] = 0;
  printf("probe partition %d %s\n", number, text);
  if (opened >= 0) close(opened);
  if (umount(folder) != 0) printf("probe umount %d %s\n", number, strerror(errno));
}

static void report_filesystem(const char* type) {
  char line[128];
  FILE* list = fopen("/proc/filesystems", "r");
  int found = 0;
  while (list && fgets(line, sizeof line, list)) {
    char* name = strrchr(line, '\t');
    if (name && strcspn(name + 1, "\n") == strlen(type) &&
        strncmp(name + 1, type, strlen(type)) == 0)
      found = 1;
  }
  if (list) fclose(list);
  printf("probe filesystem %s %s\n", type, found ? "yes" : "no");
}

/* The names of the virtio-serial ports: that is how the agent finds its own. */
static void report_ports(void) {
  DIR* ports = opendir("/sys/class/virtio-ports");
  struct dirent* entry;
  while (ports && (entry = readdir(ports))) {
    char path[300], text[64] = "";
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%.200s/name", entry->d_name);
    FILE* name = fopen(path, "r");
    if (name && fgets(text, sizeof text, name)) text[strcspn(text, "\n")] = 0;
    if (name) fclose(name);
    printf("probe port %s\n", text);
  }
  if (ports) closedir(ports);
}

static void look_around(void) {
  struct utsname name;
  uname(&name);
  printf("probe release %s\n", name.release);
  printf("probe config %s\n", exists("/proc/config.gz") ? "yes" : "no");
  const char* filesystems[] = {"overlay", "ext4", "erofs", "tmpfs", "cgroup2", "fuse", "bpf"};
  for (size_t i = 0; i < sizeof filesystems / sizeof *filesystems; ++i)
    report_filesystem(filesystems[i]);
  const int partitions = count_partitions();
  printf("probe partitions %d\n", partitions);
  for (int i = 1; i <= partitions; ++i) report_partition(i);
  int disk = open("/dev/vda", O_RDONLY);
  printf("probe reread %s\n", ioctl(disk, BLKRRPART, 0) == 0 ? "ok" : strerror(errno));
  printf("probe again %d\n", count_partitions());
  printf("probe scratch %s\n",
         mount("/dev/vdb", "/mnt", "ext4", 0, 0) == 0 ? "ok" : strerror(errno));
  printf("probe network %s\n", exists("/sys/class/net/eth0") ? "yes" : "no");
  report_ports();
}

int main(void) {
  const double first = seconds_since_boot();
  mount("proc", "/proc", "proc", 0, 0);
  mount("sysfs", "/sys", "sysfs", 0, 0);
  mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
  char command_line[4096] = "";
  int opened = open("/proc/cmdline", O_RDONLY);
  if (opened >= 0 && read(opened, command_line, sizeof command_line - 1) < 0) command_line[0] = 0;
  printf("probe first %.4f\n", first);
  if (!strstr(command_line, "probe.boot_only")) look_around();
  printf("probe end\n");
  fflush(stdout);
  if (strstr(command_line, "probe.panic")) return 3; /* The kernel panics when init ends. */
  umount("/mnt");
  reboot(RB_AUTOBOOT);
  return 1;
}
