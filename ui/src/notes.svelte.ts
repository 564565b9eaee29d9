/** Short messages at the edge of the page, such as "Copied". */
class Notes {
  list = $state<{ id: number; text: string; tone: string }[]>([]);
  #next = 0;

  add(text: string, tone: '' | 'bad' = ''): void {
    const id = this.#next++;
    this.list = [...this.list.slice(-2), { id, text, tone }];
    setTimeout(() => (this.list = this.list.filter((note) => note.id !== id)), tone ? 8000 : 3000);
  }
}

export const notes = new Notes();

export async function copy(text: string, what = 'Copied'): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    notes.add(what);
  } catch {
    // Without https there is no clipboard API, except on localhost.
    const area = document.createElement('textarea');
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    notes.add(done ? what : 'The browser refuses to copy', done ? '' : 'bad');
  }
}
