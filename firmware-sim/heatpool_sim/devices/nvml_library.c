/* A stand-in for NVIDIA's management library, as far as power and energy go.
 *
 * It answers from the file `cards` beside itself, one line a card, fields parted by tabs, "-" for
 * what a card does not tell; writes each call's name into `calls`; refuses to start while a file
 * `refuse` lies there, and waits in each call to a card while a file `hang` does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MOST_CARDS = 16, COLUMNS = 11, TEXT = 96, PATH = 4096 };
enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { ADDRESS, NAME, ENERGY, MEAN, NOW, USAGE, MOST, MODULE_ENERGY, MODULE_MEAN, MODULE_NOW,
       STATE };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };

typedef struct {
    unsigned field, scope;
    long long at, latency;
    int type, ret;
    union { double d; unsigned u; unsigned long ul; unsigned long long ull; } value;
} field_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci_t;
typedef struct { char text[COLUMNS][TEXT]; } card_t;

static void beside(char *out, const char *name) {
    Dl_info self;
    out[0] = 0;
    if (!dladdr((void *)beside, &self) || !self.dli_fname) return;
    snprintf(out, PATH, "%s", self.dli_fname);
    char *slash = strrchr(out, '/');
    size_t used = slash ? (size_t)(slash - out) + 1 : 0;
    snprintf(out + used, PATH - used, "%s", name);
}

static FILE *file(const char *name, const char *mode) {
    char path[PATH];
    beside(path, name);
    return fopen(path, mode);
}

static int is_there(const char *name) {
    char path[PATH];
    beside(path, name);
    return access(path, F_OK) == 0;
}

static void note(const char *call) {
    FILE *log = file("calls", "a");
    if (!log) return;
    fprintf(log, "%s\n", call);
    fclose(log);
}

static void wait_while_hanging(void) {
    for (int turns = 0; turns < 3000 && is_there("hang"); turns++) usleep(20000);
}

static int cards(card_t *out) {
    char line[COLUMNS * TEXT];
    int count = 0;
    FILE *list = file("cards", "r");
    while (list && count < MOST_CARDS && fgets(line, sizeof line, list)) {
        char *rest = line, *part;
        memset(&out[count], 0, sizeof out[count]);
        for (int i = 0; i < COLUMNS && (part = strsep(&rest, "\t\n")); i++)
            snprintf(out[count].text[i], TEXT, "%s", part);
        count += out[count].text[STATE][0] != 0;
    }
    if (list) fclose(list);
    return count;
}

/* A handle is the card's place in the list, from 1. */
static int card(void *handle, card_t *out) {
    card_t all[MOST_CARDS];
    long place = (long)handle;
    wait_while_hanging();
    if (place < 1 || place > cards(all)) return GPU_IS_LOST;
    *out = all[place - 1];
    return strcmp(out->text[STATE], "lost") ? OK : GPU_IS_LOST;
}

static int number(const char *text, unsigned long long *out) {
    if (text[0] == '-' || !text[0]) return NOT_SUPPORTED;
    *out = strtoull(text, 0, 10);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) {
    note(flags == 2 ? "init" : "init-attaching");
    return is_there("refuse") ? DRIVER_NOT_LOADED : OK;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) { note("shutdown"); return OK; }

const char *nvmlErrorString(int ret) {
    switch (ret) {
    case OK: return "Success";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    note("driver");
    snprintf(out, length, "570.00");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    card_t all[MOST_CARDS];
    note("count");
    *out = cards(all);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    note("handle");
    *out = (void *)(long)(index + 1);
    return OK;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **out) {
    card_t all[MOST_CARDS];
    int count = cards(all);
    note("handle");
    for (int i = 0; i < count; i++)
        if (!strcasecmp(all[i].text[ADDRESS], address)) {
            *out = (void *)(long)(i + 1);
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetPciInfo_v3(void *handle, pci_t *out) {
    card_t one;
    int ret = card(handle, &one);
    memset(out, 0, sizeof *out);
    /* The library writes domains with eight digits and hexadecimals large. */
    snprintf(out->bus_id, sizeof out->bus_id, "0000%.12s", one.text[ADDRESS]);
    for (char *c = out->bus_id; *c; c++)
        if (*c >= 'a' && *c <= 'f') *c -= 'a' - 'A';
    return ret;
}

int nvmlDeviceGetName(void *handle, char *out, unsigned length) {
    card_t one;
    note("name");
    int ret = card(handle, &one);
    if (ret == OK) snprintf(out, length, "%s", one.text[NAME]);
    return ret;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *out) {
    card_t one;
    unsigned long long told = 0;
    note("usage");
    int ret = card(handle, &one);
    if (ret == OK) ret = number(one.text[USAGE], &told);
    *out = (unsigned)told;
    return ret;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *out) {
    card_t one;
    note("energy");
    int ret = card(handle, &one);
    return ret == OK ? number(one.text[ENERGY], out) : ret;
}

static int column(unsigned field, unsigned scope) {
    switch (field) {
    case 83: return scope == 0 ? ENERGY : -1;
    case 185: return scope == 0 ? MEAN : scope == 1 ? MODULE_MEAN : -1;
    case 186: return scope == 0 ? NOW : scope == 1 ? MODULE_NOW : -1;
    case 188: return scope == 0 ? MOST : -1;
    case 191: return scope == 0 ? ENERGY : scope == 1 ? MODULE_ENERGY : -1;
    default: return -1;
    }
}

int nvmlDeviceGetFieldValues(void *handle, int count, field_t *out) {
    card_t one;
    note("fields");
    int ret = card(handle, &one);
    for (int i = 0; ret == OK && i < count; i++) {
        int at = column(out[i].field, out[i].scope);
        unsigned long long told = 0;
        out[i].ret = at < 0 ? NOT_SUPPORTED : number(one.text[at], &told);
        out[i].type = at == ENERGY || at == MODULE_ENERGY ? UNSIGNED_LONG_LONG : UNSIGNED_INT;
        out[i].value.ull = told;
    }
    return ret;
}
