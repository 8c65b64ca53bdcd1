// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the harness has done and timed by a process that is small: other programs, spawned, and the bare system calls
// that lie below an operation of mountnsd, which no implementation can do without.
//
// It reads one command a line, fields apart by tabs, and answers each with a line: nanoseconds, and the exit status of
// what was run, or minus the errno of the call that failed.
//
//   run PROGRAM ARGUMENT...   posix_spawn(3) and waitpid(2)
//   hold HOLDER [ANCHOR]      where the pins of the following go; with ANCHOR, in the mount namespace that it pins
//   create NAME               a thread makes a mount namespace, sets the propagation, detaches the holder inside;
//                             then the namespace is bound over a new file in the holder
//   enter NAME PROGRAM        fork(2), setns(2), execve(2), waitpid(2)
//   open NAME                 open(2)
//   look NAME                 a thread joins, and reads its mount table
//   table                     the mount table that the pins are in, read to its end
//   keep DIRECTORY            a small file is written, and renamed
//   destroy NAME              umount2(2), unlink(2)
//
// What has to be done in the namespace of an anchor is done by a thread that joins it.
//
// Sources: mount_namespaces(7), open_tree(2), move_mount(2), posix_spawn(3).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif
#define MOST_FIELDS 64
#define LONGEST 8192

extern char **environ;

struct work {
    int (*body)(struct work *);
    const char *name;
    int fd;
    int result; // of body: 0, or minus an errno
};

static char holder[LONGEST]; // its path
static int directory = -1;   // the holder, opened where it is
static int anchor = -1;      // the namespace that the holder is in; -1: this one

static int sys_open_tree(int dfd, const char *path, unsigned flags) {
    return (int)syscall(SYS_open_tree, dfd, path, flags);
}

static int sys_move_mount(int from, const char *source, int to, const char *target, unsigned flags) {
    return (int)syscall(SYS_move_mount, from, source, to, target, flags);
}

static void *run_body(void *argument) {
    struct work *work = argument;
    work->result = work->body(work);
    return NULL;
}

// A thread that leaves the mount namespace of this process does nothing else: its work is done when it has ended.
static int in_thread(int (*body)(struct work *), struct work *work) {
    pthread_t thread;
    work->body = body;
    int failed = pthread_create(&thread, NULL, run_body, work);
    if (failed)
        return -failed;
    pthread_join(thread, NULL);
    return work->result;
}

static int join(int fd) {
    return unshare(CLONE_FS) != 0 || setns(fd, CLONE_NEWNS) != 0 ? -errno : 0;
}

// Do something where the pins are.
static int at_the_pins(int (*body)(struct work *), struct work *work) {
    return anchor < 0 ? body(work) : in_thread(body, work);
}

static int to_the_pins(void) {
    return anchor < 0 ? 0 : join(anchor);
}

static int drain(const char *path) {
    static char buffer[1 << 16];
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        ;
    close(fd);
    return got < 0 ? -errno : 0;
}

static int open_holder(struct work *work) {
    int failed = to_the_pins();
    if (failed)
        return failed;
    work->fd = open(holder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return work->fd < 0 ? -errno : 0;
}

static int hold(const char *path, const char *pin) {
    struct work work = {0};
    snprintf(holder, sizeof holder, "%s", path);
    anchor = pin == NULL ? -1 : open(pin, O_RDONLY | O_CLOEXEC);
    if (pin != NULL && anchor < 0)
        return -errno;
    int failed = at_the_pins(open_holder, &work);
    directory = work.fd;
    return failed;
}

static int make_namespace(struct work *work) {
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
        umount2(holder, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 ||
        (work->fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0)
        return -errno;
    return 0;
}

static int bind_namespace(struct work *work) {
    int file, tree, failed = to_the_pins();
    if (failed)
        return failed;
    if ((tree = sys_open_tree(work->fd, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH)) < 0)
        return -errno;
    if ((file = openat(directory, work->name, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0400)) < 0) {
        failed = -errno;
    } else {
        close(file);
        if (sys_move_mount(tree, "", directory, work->name, MOVE_MOUNT_F_EMPTY_PATH) != 0) {
            failed = -errno;
            unlinkat(directory, work->name, 0);
        }
    }
    close(tree);
    return failed;
}

static int create(const char *name) {
    struct work work = {.name = name, .fd = -1};
    int failed = in_thread(make_namespace, &work);
    if (!failed)
        failed = at_the_pins(bind_namespace, &work);
    if (work.fd >= 0)
        close(work.fd);
    return failed;
}

static int remove_pin(struct work *work) {
    char path[2 * LONGEST];
    int failed = to_the_pins();
    if (failed)
        return failed;
    snprintf(path, sizeof path, "%s/%s", holder, work->name);
    return umount2(path, UMOUNT_NOFOLLOW) != 0 || unlink(path) != 0 ? -errno : 0;
}

static int destroy(const char *name) {
    struct work work = {.name = name};
    return at_the_pins(remove_pin, &work);
}

static int open_pin(const char *name) {
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int look_inside(struct work *work) {
    int failed = join(work->fd);
    return failed ? failed : drain("/proc/thread-self/mountinfo");
}

static int look(const char *name) {
    struct work work = {.fd = open_pin(name)};
    if (work.fd < 0)
        return work.fd;
    int failed = in_thread(look_inside, &work);
    close(work.fd);
    return failed;
}

static int read_table(struct work *work) {
    (void)work;
    int failed = to_the_pins();
    return failed ? failed : drain("/proc/thread-self/mountinfo");
}

static int table(void) {
    struct work work = {0};
    return at_the_pins(read_table, &work);
}

static int status_of(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int enter(const char *name, char **argv) {
    int fd = open_pin(name);
    if (fd < 0)
        return fd;
    pid_t pid = fork();
    if (pid == 0) {
        if (setns(fd, CLONE_NEWNS) == 0)
            execve(argv[0], argv, environ);
        _exit(127);
    }
    int failed = pid < 0 ? -errno : status_of(pid);
    close(fd);
    return failed;
}

static int run(posix_spawn_file_actions_t *actions, char **argv) {
    pid_t pid;
    int failed = posix_spawnp(&pid, argv[0], actions, NULL, argv, environ);
    return failed ? -failed : status_of(pid);
}

// As much as the metadata of a namespace without description and labels.
static int keep(const char *directory) {
    char temporary[LONGEST], final[LONGEST], text[160];
    memset(text, 'x', sizeof text);
    snprintf(temporary, sizeof temporary, "%s/.floor.new", directory);
    snprintf(final, sizeof final, "%s/floor", directory);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (write(fd, text, sizeof text) != (ssize_t)sizeof text || close(fd) != 0 || rename(temporary, final) != 0)
        return -errno;
    return 0;
}

int main(void) {
    static char line[LONGEST];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *fields[MOST_FIELDS] = {NULL}, *rest = line;
        int count = 0, result = -EINVAL;
        line[strcspn(line, "\n")] = '\0';
        while (rest != NULL && count < MOST_FIELDS - 1)
            fields[count++] = strsep(&rest, "\t");
        const char *what = fields[0];
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        if (strcmp(what, "run") == 0 && count > 1)
            result = run(&actions, fields + 1);
        else if (strcmp(what, "hold") == 0 && count > 1)
            result = hold(fields[1], fields[2]);
        else if (strcmp(what, "create") == 0 && count == 2)
            result = create(fields[1]);
        else if (strcmp(what, "enter") == 0 && count > 2)
            result = enter(fields[1], fields + 2);
        else if (strcmp(what, "open") == 0 && count == 2)
            result = (result = open_pin(fields[1])) < 0 ? result : close(result);
        else if (strcmp(what, "look") == 0 && count == 2)
            result = look(fields[1]);
        else if (strcmp(what, "table") == 0 && count == 1)
            result = table();
        else if (strcmp(what, "keep") == 0 && count == 2)
            result = keep(fields[1]);
        else if (strcmp(what, "destroy") == 0 && count == 2)
            result = destroy(fields[1]);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%lld %d\n",
               (ended.tv_sec - begun.tv_sec) * 1000000000LL + (ended.tv_nsec - begun.tv_nsec), result);
        fflush(stdout);
    }
    return 0;
}
